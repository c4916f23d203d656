"""What is handled alone: when, and who is taken for a killer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast
from unittest import mock

import pytest

from provgate_broker.consume.delivery import Delivery
from provgate_broker.consume.work_consumer import Getter
from provgate_broker.dead_letters.messages import (
    EXCHANGE_HEADER,
    ID_HEADER,
    ROUTING_KEY_HEADER,
    DeadLetterReason,
    Source,
)
from provgate_broker.errors import ConnectionLostError
from provgate_broker.topology.declaration import QUARANTINE_QUEUE
from provgate_broker.topology.policy import RangePolicy
from provgate_storage.database.local import LocalStorage
from provgate_storage.errors import RetryableStorageError, StorageFullError, StorageLockedError, StorageTimeoutError
from provgate_workers.consume import quarantine as quarantine_module
from provgate_workers.consume.quarantine import QuarantineWorker
from provgate_workers.settle.settlement import Settlement
from provgate_workers.store import batch_scheduler as writer_module
from provgate_workers.store.batch import BatchReport, Refused, Stored
from provgate_workers.store.batch_scheduler import BatchWriter
from provgate_workers.store.circuit_breaker import StorageGate
from provgate_workers.store.recovery import StorageRecovery
from tests.support.entries import encode_package
from tests.support.polling import until
from tests.support.reference import InMemoryProvenanceStorage
from tests.support.virtual_clock import InlineThreads, run_virtually
from tests.unit.deliveries import FakeAmqpChannel, delivery

FULL = StorageFullError("full")
PACKAGE_MAX_BYTES = 10_000


class FakeGetter:
    """A quarantine in memory; a lost connection is an answer that never came."""

    def __init__(self) -> None:
        self.answers: deque[Delivery | ConnectionLostError] = deque()

    async def message_count(self, _queue: str) -> int:
        return len(self.answers)

    async def get(self, _queue: str) -> Delivery | None:
        answer = self.answers.popleft() if self.answers else None
        if isinstance(answer, ConnectionLostError):
            raise answer
        return answer


class FakeSettlement:
    """Writes down what becomes of packages."""

    def __init__(self) -> None:
        self.settled: list[Stored | Refused] = []
        self.renewed: list[Delivery] = []

    def settle(self, _delivery: Delivery, outcome: Stored | Refused, _source: Source) -> None:
        self.settled.append(outcome)

    def quarantine(self, package: Delivery, _source: Source, _then: Callable[[], None]) -> None:
        self.renewed.append(package)


class FakeRecovery:
    """Closes the gate, and leaves it to the test to open it."""

    def __init__(self, gate: StorageGate) -> None:
        self._gate = gate

    def note_trouble(self, trouble: RetryableStorageError) -> None:
        self._gate.note_trouble(trouble)


class Bench:
    """A quarantine worker with everything around it."""

    def __init__(self) -> None:
        self.storage = InMemoryProvenanceStorage()
        self.storage.open()
        self.gate = StorageGate()
        self.getter = FakeGetter()
        self.settlement = FakeSettlement()
        self.amqp_channel = FakeAmqpChannel()
        self.worker = QuarantineWorker(
            cast("Getter", self.getter),
            BatchWriter(
                cast("LocalStorage", self.storage),
                RangePolicy(),
                self.gate,
                thread_count=1,
                batch_size=1,
                on_written=lambda *_: None,
            ),
            self.gate,
            cast("StorageRecovery", FakeRecovery(self.gate)),
            cast("Settlement", self.settlement),
            PACKAGE_MAX_BYTES,
        )

    def package(self, id: str, *, redelivered: bool = False, row_count: int = 1) -> Delivery:
        headers = {ID_HEADER: id, EXCHANGE_HEADER: "content", ROUTING_KEY_HEADER: "content_add.unknown.0"}
        return delivery(
            QUARANTINE_QUEUE,
            encode_package([(b"\0" * 20,)] * row_count),
            amqp_channel=self.amqp_channel,
            redelivered=redelivered,
            headers=headers,
        )

    def come(self, *answers: Delivery | ConnectionLostError) -> None:
        self.getter.answers.extend(answers)
        self.worker.look()


@asynccontextmanager
async def running() -> AsyncIterator[Bench]:
    bench = Bench()
    task = asyncio.create_task(bench.worker.run())
    try:
        yield bench
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def _inline_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "ThreadPoolExecutor", InlineThreads)


def reasons(outcomes: list[Stored | Refused]) -> list[DeadLetterReason | None]:
    return [outcome.reason if isinstance(outcome, Refused) else None for outcome in outcomes]


def test_a_harmless_package_is_stored_and_one_that_was_tried_before_is_poison() -> None:
    async def test() -> None:
        async with running() as bench:
            bench.come(bench.package("a"), bench.package("b", redelivered=True))
            await until(lambda: len(bench.settlement.settled) == 2)
            assert reasons(bench.settlement.settled) == [None, DeadLetterReason.POISON]

    run_virtually(test())


def test_one_that_is_too_large_is_refused_before_it_is_decoded() -> None:
    async def test() -> None:
        async with running() as bench:
            bench.come(bench.package("a", row_count=1000))
            await until(lambda: len(bench.settlement.settled) == 1)
            assert bench.settlement.settled == [
                Refused(DeadLetterReason.MALFORMED, "the body has 23009 bytes: more than package_max_bytes, 10000")
            ]

    asyncio.run(test())


def test_after_a_write_that_stalls_the_others_have_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with running() as bench:
            locked = mock.Mock(side_effect=StorageLockedError("locked"))
            monkeypatch.setattr(bench.storage, "write_rows", locked)
            bench.come(bench.package("a"), bench.package("b"))
            await until(lambda: len(bench.settlement.renewed) == 1)
            # It looks, and does not take the next one, however often it is told to.
            for _ in range(100):
                bench.worker.look()
                await asyncio.sleep(0)
            assert (bench.gate.is_open, len(bench.getter.answers)) == (True, 1)

    asyncio.run(test())


@pytest.mark.parametrize("write_s", [10.0, 120.0])
def test_a_package_that_takes_too_long_each_time_holds_the_others_a_small_part_of_the_time(
    monkeypatch: pytest.MonkeyPatch, write_s: float
) -> None:
    hour_s = 3600.0

    async def test() -> None:
        async with running() as bench:
            held: list[float] = []

            async def slow(*_arguments: object) -> BatchReport:
                held.append(write_s)
                await asyncio.sleep(write_s)
                return BatchReport([None], StorageTimeoutError("too long"), {})

            monkeypatch.setattr(bench.worker._writer, "write", slow)
            for _ in range(100):
                bench.come(bench.package("a"))
            await asyncio.sleep(hour_s)
            assert len(held) > 1
            assert sum(held) / hour_s <= 0.15

    run_virtually(test())


def test_a_write_that_the_quarantine_cannot_wait_for_holds_the_others_a_small_part_of_the_time() -> None:
    hour_s = 3600.0

    async def test() -> None:
        async with running() as bench:
            bench.worker._writer._idle.clear()
            bench.come(bench.package("a"))
            held_s = 0
            for _ in range(int(hour_s)):
                await asyncio.sleep(1)
                held_s += bench.worker._writer._held
            assert 0 < held_s / hour_s <= 0.15

    run_virtually(test())


def test_a_package_that_this_program_survived_is_no_poison() -> None:
    async def test() -> None:
        async with running() as bench:
            bench.come(bench.package("a"), bench.package("a", redelivered=True))
            await until(lambda: len(bench.settlement.settled) == 2)
            assert bench.settlement.settled == [Stored(1), Stored(1)]

    run_virtually(test())


def test_a_package_may_have_been_on_its_way_over_a_lost_connection() -> None:
    async def test() -> None:
        async with running() as bench:
            bench.come(ConnectionLostError("lost"), bench.package("a", redelivered=True))
            await until(lambda: bool(bench.settlement.renewed))
            assert bench.settlement.settled == []
            bench.come(bench.package("b", redelivered=True))
            await until(lambda: bool(bench.settlement.settled))
            assert reasons(bench.settlement.settled) == [DeadLetterReason.POISON]

    run_virtually(test())


def test_a_package_of_the_quarantine_is_tried_after_trouble_and_opens_the_gate() -> None:
    async def test() -> None:
        async with running() as bench:
            bench.gate.note_trouble(FULL)
            bench.come(bench.package("a"))
            await asyncio.sleep(3 * quarantine_module._LOOK_MAX_S)
            assert bench.settlement.settled == []
            verdict = bench.gate.begin_trial()
            await asyncio.wait_for(verdict, 10)
            await until(lambda: bench.settlement.settled == [Stored(1)])
            assert bench.gate.is_open

    run_virtually(test())


def test_what_is_committed_and_not_answered_is_let_go_at_the_end_once() -> None:
    async def test() -> None:
        async with running() as bench:
            answered, waiting = bench.package("a"), bench.package("b")
            bench.come(answered, waiting, bench.package("poison", redelivered=True))
            await until(lambda: len(bench.settlement.settled) == 3)
            bench.worker.settled(answered)
            bench.worker.let_go()
            bench.worker.let_go()
            assert bench.amqp_channel.acked == [waiting.delivery_tag]

    run_virtually(test())
