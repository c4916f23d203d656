"""A session's channels: questions, and the order in which set-up declares."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from pika.exceptions import ChannelClosedByBroker

from provgate_broker.amqp.connection import NOT_FOUND, AmqpChannel, AmqpSession
from provgate_broker.settings import RabbitMqSettings
from provgate_broker.topology.declaration import QueueState, declare_topology, queue_state
from provgate_broker.topology.policy import RangePolicy
from tests.support.polling import until


class FakeChannel:
    """pika's channel. It answers declarations and bindings at once, or when the test says so."""

    def __init__(self, connection: FakeConnection) -> None:
        self.is_open = True
        self.answers: list[Callable[[], None]] = []
        self._connection = connection
        self._on_close: Callable[[object, BaseException], None]

    def add_on_close_callback(self, callback: Callable[[object, BaseException], None]) -> None:
        self._on_close = callback

    def close(self) -> None:
        self.is_open = False

    def exchange_declare(self, name: str, *_: object, callback: Callable[[object], None], **_others: object) -> None:
        callback(None)

    def queue_declare(self, name: str, *, callback: Callable[[object], None], **_: object) -> None:
        self._connection.events.append(f"declare {name}")
        found = SimpleNamespace(method=SimpleNamespace(message_count=1, consumer_count=0))

        def answer() -> None:
            if name == "missing":
                self.is_open = False
                self._on_close(self, ChannelClosedByBroker(NOT_FOUND, "no queue"))
            else:
                callback(found)

        self.answers.append(answer)
        if self._connection.is_quick:
            answer()

    def queue_bind(self, queue: str, exchange: str, routing_key: str, callback: Callable[[object], None]) -> None:
        assert (exchange, routing_key) == (self._connection.exchange_of(queue), queue)
        self._connection.events.append(f"bind {queue}")
        callback(None)


class FakeConnection:
    """pika's connection."""

    def __init__(self, *, is_quick: bool = True) -> None:
        self.server_properties = {"version": "3.10.8"}
        self.is_open = False
        self.is_quick = is_quick
        self.channels: list[FakeChannel] = []
        self.events: list[str] = []

    def add_on_connection_blocked_callback(self, callback: object) -> None:
        pass

    add_on_connection_unblocked_callback = add_on_connection_blocked_callback

    def channel(self, on_open_callback: Callable[[FakeChannel], None]) -> None:
        self.channels.append(FakeChannel(self))
        on_open_callback(self.channels[-1])

    def exchange_of(self, queue: str) -> str:
        return next(each.exchange.value for each in RangePolicy().queues() if each.name == queue)


def session_of(connection: FakeConnection) -> AmqpSession:
    pika: Any = connection
    raw: Any = FakeChannel(connection)
    closed = asyncio.get_running_loop().create_future()
    return AmqpSession(pika, closed, AmqpChannel(raw, closed))


def test_questions_share_a_channel_until_the_broker_closes_it() -> None:
    async def run() -> None:
        connection = FakeConnection()
        session = session_of(connection)
        found = QueueState(message_count=1, consumer_count=0)
        names = ("here", "here", "missing", "here")
        assert [await queue_state(session, name) for name in names] == [found, found, None, found]
        assert len(connection.channels) == 2

    asyncio.run(run())


def test_the_answer_to_a_cancelled_question_is_not_taken_for_that_to_the_next_one() -> None:
    async def run() -> None:
        connection = FakeConnection(is_quick=False)
        session = session_of(connection)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue_state(session, "missing"), 0.01)
        asking = asyncio.create_task(queue_state(session, "here"))
        await until(lambda: len(connection.events) == 2)
        for amqp_channel in connection.channels:
            for answer in amqp_channel.answers:
                answer()
        assert await asking == QueueState(message_count=1, consumer_count=0)
        assert [amqp_channel.is_open for amqp_channel in connection.channels] == [False, True]

    asyncio.run(run())


def test_each_work_queue_is_bound_before_the_next_one_is_declared() -> None:
    """A gateway starts when the last queues exist, and an unbound queue gets no packages."""

    async def run() -> None:
        connection = FakeConnection()
        await declare_topology(session_of(connection), RangePolicy(), RabbitMqSettings())
        names = [queue.name for queue in RangePolicy().queues()]
        expected = [f"{what} {name}" for name in names for what in ("declare", "bind")]
        assert connection.events[: len(expected)] == expected
        assert len(connection.events) == len(expected) + 2

    asyncio.run(run())
