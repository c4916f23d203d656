from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika.exceptions import ChannelWrongStateError, ShortStringTooLong
from pika.spec import Basic, BasicProperties

from provgate_broker.amqp.connection import AmqpParameters
from provgate_broker.errors import ConnectionLostError
from provgate_broker.publish.publisher import Message, Publisher


class Recorder:
    """A listener that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []

    def publisher_ready(self) -> None:
        self.told.append(("ready",))

    def publisher_blocked(self) -> None:
        self.told.append(("blocked",))

    def publisher_lost(self) -> None:
        self.told.append(("lost",))

    def confirmed(self, token: str) -> None:
        self.told.append(("confirmed", token))

    def nacked(self, token: str) -> None:
        self.told.append(("nacked", token))

    def returned(self, token: str, exchange: str, routing_key: str) -> None:
        self.told.append(("returned", token, exchange, routing_key))


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
        self.tell_blocked: Callable[[bool], None]
        self.raw = SimpleNamespace(
            add_on_return_callback=lambda callback: setattr(self, "on_return", callback),
            confirm_delivery=lambda on_confirm, **_: setattr(self, "on_confirm", on_confirm),
            basic_publish=lambda *arguments: self.published.append(arguments),
        )
        self.amqp_channel = SimpleNamespace(raw=self.raw)

    async def call(self, start: Callable[[object], object]) -> None:
        start(None)

    def on_blocked(self, listener: Callable[[bool], None]) -> None:
        self.tell_blocked = listener

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
    task = asyncio.create_task(publisher._serve(session))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    yield session
    session.lost.set_result(None)
    with pytest.raises(ConnectionLostError):
        await task


def new_publisher() -> tuple[Publisher, Recorder]:
    recorder = Recorder()
    return Publisher(AmqpParameters("amqp://localhost", 10), "test", recorder), recorder


def message(token: str) -> Message:
    return Message(token, "content", "key", b"body")


def run(test: Callable[[], Any]) -> None:
    asyncio.run(test())


def test_each_message_is_told_of_once_by_its_own_or_a_multiple_confirm() -> None:
    async def test() -> None:
        publisher, recorder = new_publisher()
        async with serving(publisher) as session:
            for token in "abcde":
                publisher.publish(message(token))
            session.confirm(2)
            session.confirm(3, multiple=True)
            session.confirm(3, multiple=True)
            session.nack(4)
            session.confirm(9)
            assert recorder.told == [("ready",), *(("confirmed", t) for t in "bac"), ("nacked", "d")]
        assert recorder.told[-1] == ("lost",)

    run(test)


@given(st.lists(st.tuples(st.integers(1, 12), st.booleans(), st.booleans())))
def test_whatever_the_broker_says_no_message_is_told_of_twice(frames: list[tuple[int, bool, bool]]) -> None:
    async def test() -> None:
        publisher, recorder = new_publisher()
        async with serving(publisher) as session:
            tokens = [str(number) for number in range(1, 11)]
            for token in tokens:
                publisher.publish(message(token))
            covered: list[str] = []
            for tag, multiple, good in frames:
                (session.confirm if good else session.nack)(tag, multiple=multiple)
                covered += [t for t in tokens if t not in covered and (int(t) == tag or (multiple and int(t) < tag))]
            assert [told[1] for told in recorder.told[1:]] == covered

    run(test)


def test_one_that_cannot_be_encoded_does_not_shift_the_confirms_of_the_others() -> None:
    async def test() -> None:
        publisher, recorder = new_publisher()
        async with serving(publisher) as session:

            def encode(*_: object) -> None:
                raise ShortStringTooLong

            take, session.raw.basic_publish = session.raw.basic_publish, encode
            with pytest.raises(ShortStringTooLong):
                publisher.publish(message("too long"))
            session.raw.basic_publish = take
            publisher.publish(message("good"))
            session.confirm(1)
            assert recorder.told == [("ready",), ("confirmed", "good")]

    run(test)


def test_nothing_is_published_on_a_channel_that_closes() -> None:
    async def test() -> None:
        publisher, recorder = new_publisher()
        async with serving(publisher) as session:

            def refuse(*_: object) -> None:
                raise ChannelWrongStateError("Channel is closing.")

            session.raw.basic_publish = refuse
            publisher.publish(message("late"))
        assert recorder.told == [("ready",), ("lost",)]

    run(test)


def test_confirms_of_many_at_once_cost_what_they_cover() -> None:
    async def cost_s(count: int) -> float:
        publisher, recorder = new_publisher()
        async with serving(publisher) as session:
            for number in range(count):
                publisher.publish(message(str(number)))
            began = time.thread_time()
            for tag in range(2, count + 1, 2):
                session.confirm(tag, multiple=True)
            cost_s = time.thread_time() - began
        assert len(recorder.told) == count + 2
        return cost_s / count

    async def costs_s() -> tuple[float, float]:
        short_s = min([await cost_s(100) for _ in range(50)])
        return short_s, await cost_s(100_000)

    short_s, long_s = asyncio.run(costs_s())
    ratio = long_s / short_s
    assert ratio < 4, f"{long_s * 1e6:.2f} µs each of 100,000, {short_s * 1e6:.2f} µs each of 100: {ratio:.1f}"


def test_tags_begin_anew_with_each_session() -> None:
    async def test() -> None:
        publisher, recorder = new_publisher()
        async with serving(publisher):
            publisher.publish(message("old"))
        assert not publisher.ready
        publisher.publish(message("between"))
        async with serving(publisher) as session:
            publisher.publish(message("new"))
            session.confirm(1)
        assert [told for told in recorder.told if told[0] == "confirmed"] == [("confirmed", "new")]

    run(test)


def test_a_blocked_publisher_says_so() -> None:
    async def test() -> None:
        publisher, recorder = new_publisher()
        async with serving(publisher) as session:
            session.blocked = True
            session.tell_blocked(True)
            states = [(publisher.blocked, publisher.ready)]
            session.blocked = False
            session.tell_blocked(False)
            states.append((publisher.blocked, publisher.ready))
            assert states == [(True, False), (False, True)]
        assert recorder.told == [("ready",), ("blocked",), ("ready",), ("lost",)]

    run(test)


def test_a_returned_message_is_known_by_its_token() -> None:
    async def test() -> None:
        publisher, recorder = new_publisher()
        async with serving(publisher) as session:
            publisher.publish(message("plain"))
            publisher.publish(Message("token", "content", "key", b"", correlation_id="not the token"))
            for *_, properties, _mandatory in session.published:
                session.on_return(None, Basic.Return(312, "", "content", "key"), properties, b"")
        assert recorder.told[1:-1] == [("returned", "plain", "content", "key"), ("returned", "token", "content", "key")]

    run(test)


def test_messages_are_persistent_and_mandatory_unless_said_otherwise() -> None:
    async def test() -> None:
        publisher, _ = new_publisher()
        async with serving(publisher) as session:
            publisher.publish(message("a"))
            publisher.publish(Message("b", "", "key", b"", mandatory=False, persistent=False))
            first, second = session.published
            assert (first[3].delivery_mode, first[4]) == (2, True)
            assert (second[3].delivery_mode, second[4]) == (None, False)

    run(test)


def test_nothing_more_is_taken_while_much_is_unsent() -> None:
    async def main() -> None:
        recorder = Recorder()
        publisher = Publisher(AmqpParameters("amqp://nowhere/", 10), "test", recorder)
        async with serving(publisher) as session:
            session.unsent_bytes = 8 * 2**20
            for number in range(3):
                publisher.publish(Message(str(number), "", "key", b""))
            session.confirm(1)
            assert not publisher.ready
            told_before = len(recorder.told)
            session.unsent_bytes = 2**20
            session.confirm(2)
            session.confirm(3)
        assert recorder.told[told_before:] == [("confirmed", "1"), ("ready",), ("confirmed", "2"), ("lost",)]

    asyncio.run(main())
