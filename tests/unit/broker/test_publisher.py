"""Confirms, returns, and the bound on unsent messages."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika.exceptions import ChannelWrongStateError, ShortStringTooLong
from pika.spec import Basic, BasicProperties

from provgate_broker.amqp.connection import AmqpParameters
from provgate_broker.errors import ConnectionLostError
from provgate_broker.publish.publisher import Message, Publisher, PublisherListener


class Recorder:
    """A listener that records its events: ("confirmed", token), ("ready",), ..."""

    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []

    def __getattr__(self, event: str) -> Callable[..., None]:
        return lambda *arguments: self.events.append((event.removeprefix("publisher_"), *arguments))


class FakeSession:
    """What a publisher uses of a session, without a broker."""

    def __init__(self) -> None:
        self.blocked = False
        self.is_open = True
        self.unsent_bytes = 0
        self.published: list[tuple[str, str, bytes, BasicProperties, bool]] = []
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_return: Callable[..., None]
        self.on_confirm: Callable[..., None]
        self.notify_blocked: Callable[[bool], None]
        self.raw = SimpleNamespace(
            add_on_return_callback=lambda callback: setattr(self, "on_return", callback),
            confirm_delivery=lambda on_confirm, **_: setattr(self, "on_confirm", on_confirm),
            basic_publish=lambda *arguments: self.published.append(arguments),
        )
        self.amqp_channel = SimpleNamespace(raw=self.raw, call=self.call)

    async def call(self, start: Callable[[object], object]) -> None:
        start(None)

    def on_blocked(self, listener: Callable[[bool], None]) -> None:
        self.notify_blocked = listener

    async def wait_lost(self) -> None:
        await self.lost
        raise ConnectionLostError("lost")

    def confirm(self, delivery_tag: int, *, multiple: bool = False) -> None:
        self.on_confirm(SimpleNamespace(method=Basic.Ack(delivery_tag, multiple)))

    def nack(self, delivery_tag: int, *, multiple: bool = False) -> None:
        self.on_confirm(SimpleNamespace(method=Basic.Nack(delivery_tag, multiple)))


@asynccontextmanager
async def serving(publisher: Publisher) -> AsyncIterator[FakeSession]:
    session = FakeSession()
    task = asyncio.create_task(publisher.serve(session))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    yield session
    session.lost.set_result(None)
    with pytest.raises(ConnectionLostError):
        await task


def with_publisher(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs a test on a loop, with a publisher and its listener."""

    @functools.wraps(test)
    def run(*arguments: Any, **others: Any) -> None:
        recorder = Recorder()
        publisher = Publisher(AmqpParameters("amqp://localhost", 10), "test", cast("PublisherListener", recorder))
        asyncio.run(test(publisher, recorder, *arguments))

    # pytest would take the two for fixtures.
    del run.__wrapped__
    return run


def message(token: str) -> Message:
    return Message(token, "content", "key", b"body")


@with_publisher
async def test_each_message_has_one_event_for_its_own_or_a_multiple_confirm(
    publisher: Publisher, recorder: Recorder
) -> None:
    async with serving(publisher) as session:
        for token in "abcde":
            publisher.publish(message(token))
        session.confirm(2)
        session.confirm(3, multiple=True)
        session.confirm(3, multiple=True)
        session.nack(4)
        session.confirm(9)
        assert recorder.events == [("ready",), *(("confirmed", t) for t in "bac"), ("nacked", "d")]
    assert recorder.events[-1] == ("lost",)


@given(st.lists(st.tuples(st.integers(1, 12), st.booleans(), st.booleans())))
def test_no_sequence_of_confirms_causes_two_events_for_a_message(frames: list[tuple[int, bool, bool]]) -> None:
    @with_publisher
    async def test(publisher: Publisher, recorder: Recorder) -> None:
        async with serving(publisher) as session:
            tokens = [str(number) for number in range(1, 11)]
            for token in tokens:
                publisher.publish(message(token))
            covered: list[str] = []
            for tag, multiple, good in frames:
                (session.confirm if good else session.nack)(tag, multiple=multiple)
                covered += [t for t in tokens if t not in covered and (int(t) == tag or (multiple and int(t) < tag))]
            assert [event[1] for event in recorder.events[1:]] == covered

    test()


@with_publisher
async def test_a_message_that_cannot_be_encoded_does_not_shift_confirms(
    publisher: Publisher, recorder: Recorder
) -> None:
    async with serving(publisher) as session:

        def encode(*_: object) -> None:
            raise ShortStringTooLong

        publish, session.raw.basic_publish = session.raw.basic_publish, encode
        with pytest.raises(ShortStringTooLong):
            publisher.publish(message("too long"))
        session.raw.basic_publish = publish
        publisher.publish(message("good"))
        session.confirm(1)
        assert recorder.events == [("ready",), ("confirmed", "good")]


@with_publisher
async def test_nothing_is_published_on_a_channel_that_closes(publisher: Publisher, recorder: Recorder) -> None:
    async with serving(publisher) as session:

        def refuse(*_: object) -> None:
            raise ChannelWrongStateError("Channel is closing.")

        session.raw.basic_publish = refuse
        publisher.publish(message("late"))
    assert recorder.events == [("ready",), ("lost",)]


def test_the_cost_of_a_multiple_confirm_does_not_grow_with_the_number_of_unconfirmed_messages() -> None:
    costs_s: dict[int, list[float]] = {100: [], 100_000: []}

    @with_publisher
    async def measure(publisher: Publisher, recorder: Recorder, count: int) -> None:
        async with serving(publisher) as session:
            for number in range(count):
                publisher.publish(message(str(number)))
            began_s = time.thread_time()
            for tag in range(2, count + 1, 2):
                session.confirm(tag, multiple=True)
            costs_s[count].append((time.thread_time() - began_s) / count)
        assert len(recorder.events) == count + 2

    for _ in range(50):
        measure(100)
    measure(100_000)
    ratio = costs_s[100_000][0] / min(costs_s[100])
    assert ratio < 4, f"a confirm of one in 100,000 costs {ratio:.1f} times as much as of one in 100"


@with_publisher
async def test_delivery_tags_start_anew_with_each_session(publisher: Publisher, recorder: Recorder) -> None:
    async with serving(publisher):
        publisher.publish(message("old"))
    assert not publisher.ready
    assert str(publisher.last_loss) == "lost"
    publisher.publish(message("between"))
    async with serving(publisher) as session:
        publisher.publish(message("new"))
        session.confirm(1)
    assert [event for event in recorder.events if event[0] == "confirmed"] == [("confirmed", "new")]


@with_publisher
async def test_a_blocked_publisher_is_not_ready(publisher: Publisher, recorder: Recorder) -> None:
    async with serving(publisher) as session:
        states = []
        for blocked in (True, False):
            session.blocked = blocked
            session.notify_blocked(blocked)
            states.append((publisher.blocked, publisher.ready))
        assert states == [(True, False), (False, True)]
    assert recorder.events == [("ready",), ("blocked",), ("ready",), ("lost",)]


@with_publisher
async def test_a_returned_message_is_identified_by_its_token(publisher: Publisher, recorder: Recorder) -> None:
    async with serving(publisher) as session:
        publisher.publish(message("plain"))
        publisher.publish(Message("token", "content", "key", b"", correlation_id="not the token"))
        for *_, properties, _mandatory in session.published:
            session.on_return(None, Basic.Return(312, "", "content", "key"), properties, b"")
    assert recorder.events[1:-1] == [("returned", "plain", "content", "key"), ("returned", "token", "content", "key")]


@with_publisher
async def test_messages_are_persistent_and_mandatory_by_default(publisher: Publisher, recorder: Recorder) -> None:
    async with serving(publisher) as session:
        assert recorder.events == [("ready",)]
        publisher.publish(message("a"))
        publisher.publish(Message("b", "", "key", b"", mandatory=False, persistent=False))
        assert [(properties.delivery_mode, mandatory) for *_, properties, mandatory in session.published] == [
            (2, True),
            (None, False),
        ]


@with_publisher
async def test_it_is_not_ready_while_much_is_unsent(publisher: Publisher, recorder: Recorder) -> None:
    async with serving(publisher) as session:
        session.unsent_bytes = 8 * 2**20
        for number in range(3):
            publisher.publish(message(str(number)))
        session.confirm(1)
        assert not publisher.ready
        event_count = len(recorder.events)
        session.unsent_bytes = 2**20
        session.confirm(2)
        session.confirm(3)
    assert recorder.events[event_count:] == [("confirmed", "1"), ("ready",), ("confirmed", "2"), ("lost",)]
