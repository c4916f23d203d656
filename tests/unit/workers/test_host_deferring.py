"""Packages that there is no memory for go back to the broker once, when there is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from provgate_broker.amqp.connection import AmqpParameters
from provgate_broker.consume.work_consumer import Getter, WorkConsumerListener
from provgate_broker.settings import RabbitMqSettings
from provgate_broker.topology.policy import RangePolicy, parse_binding_key
from provgate_storage.database.local import LocalStorage
from provgate_workers.consume import host as host_module
from provgate_workers.consume.host import RangeHost
from provgate_workers.metrics import WorkerMetrics
from provgate_workers.program.assignment import Assignment, all_ranges
from provgate_workers.settings import WorkerConfiguration
from tests.support.reference import InMemoryProvenanceStorage
from tests.unit.deliveries import FakeAmqpChannel, delivery

QUEUE = "content_add.unknown.0"
OTHER = "directory_add.unknown.0"


class FakeConsumer:
    """Writes down what is wanted of queues."""

    def __init__(
        self,
        _parameters: AmqpParameters,
        _name: str,
        _listener: WorkConsumerListener,
        _delays_s: Mapping[str, float],
        *,
        prefetch_count: int,
    ) -> None:
        assert prefetch_count == 10
        self.getter = Getter()
        self.wanted: dict[str, str] = {}

    def register(self, queue: str) -> None:
        self.wanted[queue] = "registered"

    def suspend(self, queue: str) -> None:
        self.wanted[queue] = "suspended"

    def release(self, queue: str) -> None:
        self.wanted[queue] = "released"


class Bench:
    """A host that takes packages and stores none: no thread runs here."""

    def __init__(self) -> None:
        policy = RangePolicy.of(dict.fromkeys(("content", "directory", "location", "origin", "revision"), 1))
        assignment = Assignment(tuple(all_ranges(policy)), ())
        parameters = AmqpParameters("amqp://localhost", 10)
        settings = RabbitMqSettings(max_in_hand_bytes=400)
        configuration = WorkerConfiguration(settings, parameters, policy, (assignment,))
        storage = cast("LocalStorage", InMemoryProvenanceStorage())
        self.host = RangeHost(
            configuration, assignment, storage, "test", WorkerMetrics(CollectorRegistry()), lambda: None
        )
        # What is in hand stays there.
        self.host._writer._held = True
        self.consumer = cast("FakeConsumer", self.host._consumer)
        self.amqp_channel = FakeAmqpChannel()
        self.host._take_again()

    def deliver(self, tag: int, size_bytes: int, queue: str = QUEUE, *, redelivered: bool = False) -> None:
        package = delivery(
            queue, b"b" * size_bytes, amqp_channel=self.amqp_channel, delivery_tag=tag, redelivered=redelivered
        )
        self.host.delivered(package)

    def settle_first(self, queue: str) -> None:
        """Has the package settled that waits longest in a queue."""
        operation, _ = parse_binding_key(queue)
        (package,) = self.host._workers[queue].take(operation, 1, 1).deliveries
        self.host._on_settled(package)


def on_a_loop(test: Callable[[Bench], None]) -> None:
    async def run() -> None:
        test(Bench())

    asyncio.run(run())


@pytest.fixture(autouse=True)
def _fake_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "WorkConsumer", FakeConsumer)


def test_what_does_not_fit_goes_back_when_memory_is_free() -> None:
    def test(bench: Bench) -> None:
        bench.deliver(1, 60)
        bench.deliver(2, 60)
        bench.deliver(3, 60)
        assert (bench.amqp_channel.requeued, bench.consumer.wanted[QUEUE]) == ([], "registered")
        bench.settle_first(QUEUE)
        assert bench.amqp_channel.requeued == [2]
        bench.deliver(4, 60, redelivered=True)
        assert bench.amqp_channel.requeued == [2]
        bench.settle_first(QUEUE)
        assert bench.amqp_channel.requeued == [2, 3]

    on_a_loop(test)


def test_what_does_not_fit_goes_back_when_its_queue_sends_no_more() -> None:
    def test(bench: Bench) -> None:
        bench.deliver(1, 60)
        bench.deliver(2, 60)
        bench.host.suspended(QUEUE)
        bench.host.suspended(QUEUE)
        assert bench.amqp_channel.requeued == [2]

    on_a_loop(test)


def test_what_the_broker_took_back_is_not_given_back() -> None:
    def test(bench: Bench) -> None:
        bench.deliver(1, 60)
        bench.deliver(2, 60)
        bench.deliver(3, 60, OTHER)
        bench.deliver(4, 60, OTHER)
        bench.host.taken_back(QUEUE)
        bench.host.suspended(QUEUE)
        assert bench.amqp_channel.requeued == []
        bench.settle_first(OTHER)
        assert bench.amqp_channel.requeued == [4]

    on_a_loop(test)


def test_what_comes_between_giving_up_and_taking_again_goes_back() -> None:
    def test(bench: Bench) -> None:
        bench.host._give_up()
        bench.deliver(1, 10)
        assert (bench.amqp_channel.requeued, bench.consumer.wanted[QUEUE]) == ([], "released")
        bench.host._take_again()
        assert (bench.amqp_channel.requeued, bench.consumer.wanted[QUEUE]) == ([1], "registered")

    on_a_loop(test)
