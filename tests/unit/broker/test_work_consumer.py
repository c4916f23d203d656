"""What the work consumer asks of the broker, and what it reports."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika.spec import Basic, BasicProperties

from provgate_broker.amqp.connection import AmqpParameters, AmqpSession
from provgate_broker.consume import work_consumer as work_consumer_module
from provgate_broker.consume.delivery import DELIVERY_COUNT_HEADER, Delivery
from provgate_broker.consume.work_consumer import ConsumerEvent, Getter, Registered, Suspended, TakenBack, WorkConsumer
from provgate_broker.errors import ConnectionLostError
from tests.support.virtual_clock import run_virtually
from tests.unit.deliveries import delivery

STANDBY_S = 30.0
LOST = ConnectionLostError("lost")


class FakeChannel:
    """A channel that answers at once, and writes down what it is asked."""

    def __init__(self, log: list[str], messages: dict[str, list[bytes]]) -> None:
        self.lost: asyncio.Future[ConnectionLostError] = asyncio.get_running_loop().create_future()
        self.raw = self
        self._log = log
        self._messages = messages
        self._on_empty: Callable[[object], None] = lambda _: None
        self.on_cancel: Callable[[object], None] = lambda _: None
        self.on_message: Callable[..., None] = lambda *_: None

    async def call(self, start: Callable[[Callable[..., None]], object]) -> Any:
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        start(answered.set_result)
        await asyncio.wait({answered, self.lost}, return_when=asyncio.FIRST_COMPLETED)
        if not answered.done():
            raise self.lost.result()
        return answered.result()

    def close(self) -> Awaitable[None]:
        self._log.append("close")
        if not self.lost.done():
            self.lost.set_result(ConnectionLostError("closed"))
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        closed.set_result(None)
        return closed

    def add_on_cancel_callback(self, callback: Callable[[object], None]) -> None:
        self.on_cancel = callback

    def add_callback(self, callback: Callable[[object], None], _replies: object, one_shot: bool) -> None:
        assert not one_shot
        self._on_empty = callback

    def basic_qos(self, prefetch_count: int, callback: Callable[[object], None]) -> None:
        self._log.append(f"qos {prefetch_count}")
        callback(None)

    def basic_consume(self, queue: str, on_message: Callable[..., None], callback: Callable[[object], None]) -> None:
        if queue == "refused":
            self.lost.set_result(ConnectionLostError("no queue", 404))
            return
        self._log.append(f"consume {queue}")
        self.on_message = on_message
        callback(SimpleNamespace(method=SimpleNamespace(consumer_tag=f"tag of {queue}")))

    def basic_cancel(self, consumer_tag: str, callback: Callable[[object], None]) -> None:
        self._log.append(f"cancel {consumer_tag}")
        callback(None)

    def queue_declare(self, queue: str, passive: bool, callback: Callable[[object], None]) -> None:
        assert passive
        callback(SimpleNamespace(method=SimpleNamespace(message_count=len(self._messages[queue]))))

    def basic_get(self, queue: str, callback: Callable[..., None]) -> None:
        if self._messages[queue]:
            body = self._messages[queue].pop(0)
            callback(self, Basic.GetOk(delivery_tag=1, redelivered=True), BasicProperties(), body)
        else:
            self._on_empty(object())


class Bench:
    """A work consumer whose connections the test makes and breaks."""

    def __init__(self, delays_s: dict[str, float], messages: dict[str, list[bytes]] | None = None) -> None:
        self.events: list[ConsumerEvent] = []
        self.log: list[str] = []
        self.channels: list[FakeChannel] = []
        self.is_open = True
        self._messages = messages or {}
        self._serve: Callable[[AmqpSession], Awaitable[None]]
        self._connection_lost: asyncio.Future[ConnectionLostError]
        with mock.patch.object(work_consumer_module, "AmqpLink", self._take_serve):
            self.consumer = WorkConsumer(
                AmqpParameters("amqp://localhost", 10), "test", delays_s, 7, self.events.append
            )

    def _take_serve(self, _parameters: object, _name: object, serve: Any) -> None:
        self._serve = serve

    def connect(self) -> asyncio.Future[None]:
        """Makes a connection; the future ends with it."""
        self.is_open = True
        self._connection_lost = asyncio.get_running_loop().create_future()
        return asyncio.ensure_future(self._serve(cast("AmqpSession", self)))

    def disconnect(self) -> None:
        self.is_open = False
        self._connection_lost.set_result(LOST)
        for channel in self.channels:
            if not channel.lost.done():
                channel.lost.set_result(LOST)

    async def open_channel(self) -> FakeChannel:
        """Stands for `AmqpSession.open_channel`."""
        self.channels.append(FakeChannel(self.log, self._messages))
        return self.channels[-1]

    async def wait_lost(self) -> None:
        """Stands for `AmqpSession.wait_lost`."""
        raise await self._connection_lost


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_queue_is_consumed_with_a_prefetch_count_and_its_packages_are_reported() -> None:
    async def test() -> None:
        bench = Bench({"a": 0.0})
        bench.connect()
        await settled()
        assert (bench.log, bench.events) == ([], [])
        bench.consumer.register()
        await settled()
        assert (bench.log, bench.events) == (["qos 7", "consume a"], [Registered("a")])
        method = Basic.Deliver("tag of a", 3, True, "content", "key")
        properties = BasicProperties(reply_to="amq.gen-x", correlation_id="c", headers={"h": 1})
        bench.channels[0].on_message(None, method, properties, b"body")
        (_, package) = bench.events
        assert isinstance(package, Delivery)
        assert (package.queue, package.exchange, package.routing_key, package.body) == ("a", "content", "key", b"body")
        assert (package.delivery_tag, package.redelivered, package.headers) == (3, True, {"h": 1})
        assert (package.reply_to, package.correlation_id, package.in_hand) == ("amq.gen-x", "c", True)

    run_virtually(test())


def test_a_suspended_queue_keeps_its_channel_and_a_released_one_gives_its_packages_back() -> None:
    async def test() -> None:
        bench = Bench({"a": 0.0})
        bench.connect()
        bench.consumer.register()
        await settled()
        bench.consumer.suspend()
        await settled()
        assert bench.log[2:] == ["cancel tag of a"]
        assert bench.events[1:] == [Suspended("a")]
        bench.consumer.register()
        bench.consumer.release()
        await settled()
        assert bench.log[3:] == ["close"]
        assert bench.events[2:] == [TakenBack("a")]
        bench.consumer.register()
        await settled()
        assert bench.events[3:] == [Registered("a")]
        assert len(bench.channels) == 2

    run_virtually(test())


def test_a_queue_that_is_registered_again_before_its_channel_is_closed_keeps_it() -> None:
    async def test() -> None:
        bench = Bench({"a": 0.0})
        bench.connect()
        bench.consumer.register()
        await settled()
        bench.consumer.release()
        bench.consumer.register()
        await settled()
        assert (bench.log, bench.events) == (["qos 7", "consume a"], [Registered("a")])
        assert not bench.channels[0].lost.done()

    run_virtually(test())


def test_standby_queues_are_left_to_others_on_every_new_connection() -> None:
    async def test() -> None:
        bench = Bench({"a": 0.0, "b": STANDBY_S})
        bench.consumer.register()
        for _ in range(2):
            bench.events.clear()
            served = bench.connect()
            await asyncio.sleep(STANDBY_S - 1)
            assert bench.events == [Registered("a")]
            assert bench.consumer.connected
            await asyncio.sleep(2)
            assert bench.events[1:] == [Registered("b")]
            bench.disconnect()
            with pytest.raises(ConnectionLostError):
                await served
            assert set(bench.events[2:]) == {TakenBack("a"), TakenBack("b")}
            assert not bench.consumer.connected

    run_virtually(test())


def test_a_queue_that_is_deleted_or_refused_is_tried_again_and_disturbs_no_other() -> None:
    async def test() -> None:
        bench = Bench({"a": 0.0, "refused": 0.0})
        bench.connect()
        bench.consumer.register()
        await settled()
        assert bench.events == [Registered("a"), TakenBack("refused")]
        # Its queue is deleted.
        next(channel for channel in bench.channels if not channel.lost.done()).on_cancel(object())
        await settled()
        assert bench.events[2:] == [TakenBack("a")]
        await asyncio.sleep(6)
        assert Registered("a") in bench.events[3:]
        assert bench.events.count(TakenBack("refused")) > 1
        assert bench.consumer.connected

    run_virtually(test())


def test_messages_are_taken_one_by_one_over_a_channel_that_is_opened_again() -> None:
    async def test() -> None:
        bench = Bench({}, {"q": [b"1", b"2"]})
        getter = Getter(cast("AmqpSession", bench))
        assert await getter.message_count("q") == 2
        taken = [await getter.get("q"), await getter.get("q")]
        assert [package.body for package in taken if package is not None] == [b"1", b"2"]
        assert await getter.get("q") is None
        assert len(bench.channels) == 1
        bench.channels[0].lost.set_result(LOST)
        assert await getter.get("q") is None
        assert len(bench.channels) == 2
        with pytest.raises(ConnectionLostError):
            await Getter().get("q")

    run_virtually(test())


def test_redeliveries_are_those_that_the_broker_counted() -> None:
    assert delivery().redelivery_count == 0
    assert delivery(headers={DELIVERY_COUNT_HEADER: 11}).redelivery_count == 11
    assert delivery(headers={"provgate-redeliveries": 11}, redelivered=True).redelivery_count == 0


@given(st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers()) | st.floats())
def test_a_forged_count_is_a_count_or_nothing(value: Any) -> None:
    assert delivery(headers={DELIVERY_COUNT_HEADER: value}).redelivery_count >= 0
