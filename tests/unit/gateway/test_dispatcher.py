"""What a backlog of packages costs, and how much of the loop it takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from provgate_broker.amqp.connection import AmqpParameters
from provgate_broker.publish.publisher import Message
from provgate_broker.topology.policy import Exchange
from provgate_gateway.metrics import GatewayMetrics
from provgate_gateway.publish import dispatcher as module
from provgate_gateway.publish.dispatcher import Dispatcher
from provgate_gateway.write.splitting import Package
from tests.unit.gateway.test_ledger import Owner

PACKAGE = Package(Exchange.CONTENT, "content_add.unknown.0", b"", 1)
SLICE = 500
LONG_COUNT = 200_000


class FakePublisher:
    """Takes messages once it is told to, and keeps their tokens."""

    connected = blocked = ready = False
    last_loss = None

    def __init__(self, _parameters: AmqpParameters, _name: str, _listener: object) -> None:
        self.tokens: list[str] = []

    def publish(self, message: Message) -> None:
        self.tokens.append(message.token)


class FakeReplies:
    queue = "amq.gen-replies"
    queue_state = None

    def __init__(self, _parameters: AmqpParameters, _name: str, _listener: object) -> None:
        pass


class Bench:
    """A dispatcher whose publisher takes nothing yet."""

    def __init__(self) -> None:
        parameters = AmqpParameters("amqp://localhost", 10)
        self.dispatcher = Dispatcher(parameters, "test", GatewayMetrics(CollectorRegistry()))
        self.publisher = cast("FakePublisher", self.dispatcher._publisher)
        self.owner = Owner()

    def submit(self, count: int) -> None:
        self.dispatcher.submit([PACKAGE] * count, self.owner)

    def open(self) -> None:
        self.publisher.ready = True
        self.dispatcher.publisher_ready()

    async def published(self, count: int) -> None:
        async with asyncio.timeout(120):
            while len(self.publisher.tokens) < count:  # noqa: ASYNC110 - each turn of the loop is a slice
                await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Publisher", FakePublisher)
    monkeypatch.setattr(module, "ReplyConsumer", FakeReplies)


def run(test: Callable[[Bench], Awaitable[None]]) -> None:
    async def with_bench() -> None:
        await test(Bench())

    asyncio.run(with_bench())


async def cost_s(waiting_count: int) -> float:
    """Returns the CPU time that a package takes from a backlog to the publisher."""
    bench = Bench()
    bench.submit(waiting_count)
    began = time.thread_time()
    bench.open()
    await bench.published(waiting_count)
    return (time.thread_time() - began) / waiting_count


def test_a_package_of_a_long_backlog_costs_what_one_of_a_short_backlog_does() -> None:
    async def costs_s() -> tuple[float, float]:
        short_s = min([await cost_s(100) for _ in range(50)])
        return short_s, await cost_s(LONG_COUNT)

    short_s, long_s = asyncio.run(costs_s())
    # Little more than 1 where the cost is linear: caches and the garbage collector make the difference.
    ratio = long_s / short_s
    assert ratio < 4, f"{long_s * 1e6:.1f} µs each of {LONG_COUNT}, {short_s * 1e6:.1f} µs each of 100: {ratio:.1f}"


def test_the_loop_is_given_back_after_a_slice_whatever_is_submitted_meanwhile() -> None:
    async def test(bench: Bench) -> None:
        bench.submit(20 * SLICE)
        bench.open()
        counts = [len(bench.publisher.tokens)]
        while counts[-1] < 20 * SLICE + len(counts) - 1:
            bench.submit(1)
            await asyncio.sleep(0)
            counts.append(len(bench.publisher.tokens))
        slices = [after - before for before, after in pairwise(counts)]
        assert max(slices) <= SLICE, slices

    run(test)


def test_packages_go_out_in_the_order_in_which_they_came_and_dropped_ones_do_not() -> None:
    async def test(bench: Bench) -> None:
        gone = Owner()
        bench.submit(SLICE)
        bench.dispatcher.submit([PACKAGE] * SLICE, gone)
        bench.submit(SLICE)
        bench.dispatcher.drop(gone)
        bench.open()
        await bench.published(2 * SLICE)
        for token in bench.publisher.tokens:
            bench.dispatcher.replied(token, 1)
        assert (bench.owner.acked_count, gone.acked_count) == (2 * SLICE, 0)
        assert len(bench.publisher.tokens) == 2 * SLICE

    run(test)


def test_only_a_broker_that_becomes_reachable_or_stops_being_so_is_told_of() -> None:
    async def main() -> None:
        told: list[bool] = []
        parameters = AmqpParameters("amqp://localhost", 10)
        dispatcher = Dispatcher(
            parameters,
            "test",
            GatewayMetrics(CollectorRegistry()),
            on_change=lambda: told.append(dispatcher.connected),
        )
        publisher = cast("FakePublisher", dispatcher._publisher)
        publisher.connected = publisher.ready = True
        # A publisher says that it is ready whenever it has caught up: many times a second, under load.
        for _ in range(100):
            dispatcher.publisher_ready()
        dispatcher.publisher_blocked()
        publisher.connected = publisher.ready = False
        dispatcher.publisher_lost()
        assert told == [True, False]

    asyncio.run(main())
