"""An operation that stalls leaves threads to the others, and what takes too long is stored in parts or set apart."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast

import pytest

from provgate_broker.consume.delivery import Delivery
from provgate_broker.topology.policy import Exchange, Operation, RangePolicy, WriteMethod, binding_key, operations_of
from provgate_storage.database.local import LocalStorage
from provgate_storage.errors import StorageError, StorageLockedError, StorageTimeoutError, StorageUnavailableError
from provgate_storage.model import RelationType
from provgate_storage.rows.rows import Row
from provgate_workers.consume.range_queues import RangeWorker
from provgate_workers.program.assignment import Range
from provgate_workers.store import batch_scheduler as writer_module
from provgate_workers.store.batch import BatchReport, Refused, Stored
from provgate_workers.store.batch_scheduler import Batch, BatchWriter, OperationPace
from provgate_workers.store.circuit_breaker import StorageGate
from tests.support.entries import encode_package
from tests.support.polling import until
from tests.support.virtual_clock import InlineThreads, run_virtually
from tests.unit.deliveries import FakeAmqpChannel, delivery

CONTENT_ADD = Operation(WriteMethod.CONTENT_ADD)
EARLY = Operation(WriteMethod.RELATION_ADD, RelationType.CNT_EARLY_IN_REV)
FULL = 8

Failure = Callable[[str, Sequence[Row]], StorageError | None]


class FailingStorage:
    """Fails as it is told to, and holds what is held."""

    def __init__(self) -> None:
        self.failure: Failure = lambda _name, _rows: None
        self.held: set[str] = set()
        self.may_go_on = threading.Event()
        self.calls: list[tuple[str, int]] = []

    def write_rows(self, name: str, rows: Sequence[Row]) -> bool:
        self.calls.append((name, len(rows)))
        if name in self.held:
            assert self.may_go_on.wait(10)
        error = self.failure(name, rows)
        if error is not None:
            raise error
        return True


class Process:
    """One range worker with one storage thread."""

    def __init__(self) -> None:
        self.storage = FailingStorage()
        self.outcomes: dict[Delivery, Stored | Refused] = {}
        self.operations = {binding_key(operation, 0): operation for operation in operations_of(Exchange.CONTENT)}
        self.worker = RangeWorker(Range(Exchange.CONTENT, 0), self.operations)
        self.gate = StorageGate()
        self.writer = BatchWriter(
            cast("LocalStorage", self.storage),
            RangePolicy(),
            self.gate,
            thread_count=1,
            batch_size=FULL,
            on_written=self.on_written,
        )
        self.written: Callable[[Batch, BatchReport], None] = lambda _batch, _report: None

    def deliver(self, number: int, operation: Operation = CONTENT_ADD, row_count: int = 1) -> Delivery:
        id = bytes([number]) * 20
        body = encode_package([(id,) if operation is CONTENT_ADD else (id, id, b"path")] * row_count)
        package = delivery(binding_key(operation, 0), body)
        self.worker.add(package)
        self.writer.offer(self.worker)
        return package

    def stored_count(self, packages: Sequence[Delivery]) -> int:
        return sum(isinstance(self.outcomes.get(package), Stored) for package in packages)

    def on_written(self, batch: Batch, report: BatchReport) -> None:
        self.written(batch, report)
        for package, outcome in zip(batch.deliveries, report.outcomes, strict=True):
            if outcome is not None:
                assert package not in self.outcomes, "it is settled twice"
                self.outcomes[package] = outcome


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "_STALLS_AFTER_S", 0.01, raising=False)
    monkeypatch.setattr(writer_module, "_APART_FIRST_S", 0.001, raising=False)


def run(scenario: Callable[[Process], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        process = Process()
        try:
            await scenario(process)
        finally:
            process.storage.may_go_on.set()
            await process.writer.stop()

    asyncio.run(main())


def test_an_operation_that_stalls_takes_no_thread_from_others() -> None:
    async def scenario(process: Process) -> None:
        process.storage.held.add("content")
        stalled = process.deliver(1)
        await until(lambda: process.storage.calls == [("content", 1)])
        others = [process.deliver(number, EARLY) for number in range(3)]
        await until(lambda: process.stored_count(others) == 3)
        # Nothing more of the one that stalls is begun meanwhile, however much waits.
        waiting = [process.deliver(number) for number in range(2, 2 * FULL)]
        more = process.deliver(9, EARLY)
        await until(lambda: process.stored_count([more]) == 1)
        assert Counter(name for name, _ in process.storage.calls)["content"] == 1
        process.storage.may_go_on.set()
        await until(lambda: process.stored_count([stalled, *waiting]) == 1 + len(waiting))

    run(scenario)


def test_a_lock_that_is_not_granted_stops_no_other_operation() -> None:
    async def scenario(process: Process) -> None:
        process.storage.failure = lambda name, _: StorageLockedError("locked") if name == "content" else None
        locked = [process.deliver(number) for number in range(4)]
        await until(lambda: len(process.storage.calls) >= 4)
        others = [process.deliver(number, EARLY) for number in range(3)]
        await until(lambda: process.stored_count(others) == 3)
        assert not process.stored_count(locked)
        assert process.writer.stalled_count == 1
        process.storage.failure = lambda _name, _rows: None
        await until(lambda: process.stored_count(locked) == 4)
        assert process.writer.stalled_count == 0

    run(scenario)


def test_a_batch_that_takes_too_long_is_halved() -> None:
    async def scenario(process: Process) -> None:
        process.storage.failure = lambda _, rows: StorageTimeoutError("too long") if len(rows) > 2 else None
        packages = [process.deliver(number) for number in range(FULL)]
        await until(lambda: process.stored_count(packages) == FULL)
        assert [count for _, count in process.storage.calls][:3] == [8, 4, 2]

    run(scenario)


def test_a_package_that_takes_too_long_is_refused_while_others_are_stored() -> None:
    async def scenario(process: Process) -> None:
        slow_id = b"\x01" * 20
        # The first try alone is over at once, each other one when something is stored.
        may_fail = threading.Semaphore(1)

        def failure(_name: str, rows: Sequence[Row]) -> StorageError | None:
            if all(row[0] != slow_id for row in rows):
                return None
            if len(rows) == 1:
                assert may_fail.acquire(timeout=10)
            return StorageTimeoutError("too long")

        process.storage.failure = failure
        slow = process.deliver(1)
        others = [process.deliver(number) for number in range(2, 2 + FULL)]
        await until(lambda: process.stored_count(others) == FULL)
        number = 0
        while slow not in process.outcomes:
            other = process.deliver(2 + number % 200)
            await until(lambda other=other: process.stored_count([other]) == 1)  # type: ignore[misc]
            may_fail.release()
            number += 1
        refused = process.outcomes[slow]
        assert isinstance(refused, Refused)
        assert "time limit" in refused.message

    run(scenario)


def test_a_small_package_that_takes_too_long_is_found_before_large_ones() -> None:
    async def scenario(process: Process) -> None:
        slow_id = b"\x01" * 20
        process.storage.failure = lambda _, rows: (
            StorageTimeoutError("too long") if any(row[0] == slow_id for row in rows) else None
        )
        process.deliver(1)
        others = [process.deliver(number, row_count=5) for number in range(2, 6)]
        await until(lambda: process.stored_count(others) == len(others))

    run(scenario)


def test_nothing_is_refused_while_nothing_is_stored() -> None:
    async def scenario(process: Process) -> None:
        process.storage.failure = lambda _name, _rows: StorageTimeoutError("too long")
        packages = [process.deliver(number) for number in range(3)]
        # Each of them alone, more often than one may fail.
        await until(lambda: Counter(process.storage.calls)["content", 1] > 3 * 10)
        assert not process.outcomes
        process.storage.failure = lambda _name, _rows: None
        await until(lambda: process.stored_count(packages) == 3)

    run(scenario)


def test_an_operation_whose_packages_went_elsewhere_stalls_no_more() -> None:
    async def scenario(process: Process) -> None:
        process.storage.failure = lambda _name, _rows: StorageLockedError("locked")
        process.deliver(1)
        await until(lambda: process.writer.stalled_count == 1)
        # The storage goes away before the trial, the ranges are given up, and another process takes them.
        process.gate.note_trouble(StorageUnavailableError("away"))
        await until(lambda: not process.writer._paces[CONTENT_ADD].paused)
        assert process.writer.stalled_count == 1
        process.worker.drop(binding_key(CONTENT_ADD, 0))
        assert process.writer.stalled_count == 0

    run(scenario)


def test_a_pause_that_a_later_success_ended_slows_nothing_down() -> None:
    pace = OperationPace(CONTENT_ADD, FULL)
    pace.failed(StorageLockedError("locked"), 1)
    # Of two batches that ran at once.
    pace.stored()
    pace.resume(waiting=True)
    assert not pace.stalled


def test_a_package_is_not_refused_where_others_are_stored_only_between_its_tries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Each write is over before anything else is begun: the database does nothing else while it is tried.
    monkeypatch.setattr(writer_module, "ThreadPoolExecutor", InlineThreads)
    monkeypatch.setattr(writer_module, "_APART_FIRST_S", 10.0)

    async def test() -> None:
        process = Process()
        slow_id = b"\x01" * 20
        process.storage.failure = lambda _, rows: (
            StorageTimeoutError("too long") if any(row[0] == slow_id for row in rows) else None
        )
        slow = process.deliver(1)
        others = []
        for number in range(2, 200):
            await asyncio.sleep(10)
            others.append(process.deliver(number))
        await asyncio.sleep(10)
        assert process.stored_count(others) == len(others)
        assert slow not in process.outcomes

    run_virtually(test())


def test_a_package_that_the_broker_took_back_meanwhile_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "ThreadPoolExecutor", InlineThreads)
    monkeypatch.setattr(writer_module, "_TIMEOUTS_MAX_COUNT", 0)

    async def test() -> None:
        process = Process()

        def failure(_name: str, _rows: Sequence[Row]) -> StorageError:
            cast("FakeAmqpChannel", slow.amqp_channel).is_lost = True
            return StorageTimeoutError("too long")

        process.storage.failure = failure
        slow = process.deliver(1)
        await asyncio.sleep(600)
        assert len(process.storage.calls) == 1
        assert not process.outcomes

    run_virtually(test())


def test_a_fault_in_what_follows_a_batch_ends_the_program() -> None:
    async def scenario(process: Process) -> None:
        def fault(_batch: Batch, _report: BatchReport) -> None:
            raise ZeroDivisionError

        process.written = fault
        process.deliver(1)
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(asyncio.shield(process.writer.failed), 10)
        # It ends in order: what waits for the last batch is told.
        await asyncio.wait_for(process.writer.stop(), 10)

    run_without_stop(scenario)


def run_without_stop(scenario: Callable[[Process], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await scenario(Process())

    asyncio.run(main())
