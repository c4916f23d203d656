"""A process whose storage fails comes back by itself, and gives its ranges up only where others may do better."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from provgate_broker.topology.policy import Exchange, RangePolicy, binding_key, operations_of
from provgate_storage.database.local import LocalStorage
from provgate_storage.errors import RetryableStorageError, StorageFullError, StorageUnavailableError
from provgate_workers.consume.range_queues import RangeWorker
from provgate_workers.program.assignment import Range
from provgate_workers.store import batch_scheduler as writer_module
from provgate_workers.store.batch import BatchReport
from provgate_workers.store.batch_scheduler import Batch, BatchWriter
from provgate_workers.store.circuit_breaker import StorageGate
from provgate_workers.store.recovery import StorageRecovery
from tests.support.entries import encode_package
from tests.support.polling import until
from tests.support.reference import InMemoryProvenanceStorage
from tests.support.virtual_clock import InlineThreads, run_virtually
from tests.unit.deliveries import delivery

PAUSE_LIMIT_S = 10.0
FULL = StorageFullError("full")
AWAY = StorageUnavailableError("away")


class FailingStorage(InMemoryProvenanceStorage):
    """Fails as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.open()
        self.probe_failure: RetryableStorageError | None = None
        self.write_failure: RetryableStorageError | None = None
        self.failed_write_count = 0

    def probe(self) -> None:
        if self.probe_failure is not None:
            raise self.probe_failure

    def content_add(self, cnts: Any) -> bool:
        if self.write_failure is not None:
            self.failed_write_count += 1
            raise self.write_failure
        return super().content_add(cnts)


class Bench:
    """Recovery, gate and writer as a process has them."""

    def __init__(self) -> None:
        self.storage = FailingStorage()
        self.gate = StorageGate()
        self.range_changes: list[str] = []
        self.written_count = 0
        self.writer = BatchWriter(
            cast("LocalStorage", self.storage),
            RangePolicy(),
            self.gate,
            thread_count=2,
            batch_size=100,
            on_written=self._on_written,
        )
        self.recovery = StorageRecovery(
            self.gate,
            self.writer,
            PAUSE_LIMIT_S,
            lambda: self.range_changes.append("given up"),
            lambda: self.range_changes.append("taken"),
        )
        operations = {binding_key(operation, 0): operation for operation in operations_of(Exchange.CONTENT)}
        self.worker = RangeWorker(Range(Exchange.CONTENT, 0), operations)

    def write(self) -> None:
        self.worker.add(delivery("content_add.unknown.0", encode_package([(b"i" * 20,)])))
        self.writer.offer(self.worker)

    def _on_written(self, batch: Batch, report: BatchReport) -> None:
        if report.trouble is None:
            self.written_count += sum(len(share.deliveries) for share in batch.shares)
            self.gate.note_success()
        else:
            self.recovery.note_trouble(report.trouble)


@asynccontextmanager
async def running() -> AsyncIterator[Bench]:
    bench = Bench()
    task = asyncio.create_task(bench.recovery.run())
    try:
        yield bench
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await bench.writer.stop()


def on_a_loop(test: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with running() as bench:
            await test(bench)

    run_virtually(run())


@pytest.fixture(autouse=True)
def _inline_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "ThreadPoolExecutor", InlineThreads)


def test_a_probe_is_enough_where_nothing_waits() -> None:
    async def test(bench: Bench) -> None:
        bench.recovery.note_trouble(AWAY)
        await until(lambda: bench.gate.is_open)
        await asyncio.sleep(3 * PAUSE_LIMIT_S)
        assert bench.range_changes == []

    on_a_loop(test)


def test_a_process_that_stands_by_after_trouble_keeps_its_place() -> None:
    async def test(bench: Bench) -> None:
        bench.storage.probe_failure = AWAY
        bench.recovery.note_trouble(AWAY)
        await until(lambda: bench.range_changes == ["given up"])
        bench.storage.probe_failure = None
        await until(lambda: bench.gate.is_open)
        await asyncio.sleep(3 * PAUSE_LIMIT_S)
        assert bench.range_changes == ["given up", "taken"]
        bench.write()
        await until(lambda: bench.written_count == 1)

    on_a_loop(test)


def test_ranges_are_given_up_once_an_outage_and_again_in_the_next() -> None:
    async def test(bench: Bench) -> None:
        for number in (1, 2):
            bench.storage.probe_failure = AWAY
            bench.recovery.note_trouble(AWAY)
            await until(lambda number=number: bench.range_changes.count("given up") == number)  # type: ignore[misc]
            await asyncio.sleep(3 * PAUSE_LIMIT_S)
            assert bench.range_changes == ["given up", "taken"] * (number - 1) + ["given up"]
            bench.storage.probe_failure = None
            await until(lambda: bench.gate.is_open)

    on_a_loop(test)


def test_a_storage_that_answers_and_refuses_is_waited_for() -> None:
    async def test(bench: Bench) -> None:
        bench.storage.write_failure = FULL
        bench.write()
        await asyncio.sleep(5 * PAUSE_LIMIT_S)
        assert bench.storage.failed_write_count > 5
        assert (bench.range_changes, bench.written_count, bench.gate.is_open) == ([], 0, False)
        bench.storage.write_failure = None
        await until(lambda: bench.gate.is_open)
        assert bench.written_count == 1

    on_a_loop(test)


def test_what_waits_is_tried_alone_and_opens_the_gate() -> None:
    async def test(bench: Bench) -> None:
        bench.storage.write_failure = bench.storage.probe_failure = AWAY
        bench.write()
        await until(lambda: not bench.gate.is_open)
        bench.storage.probe_failure = None
        await asyncio.sleep(3 * PAUSE_LIMIT_S)
        assert bench.storage.failed_write_count > 3
        assert not bench.gate.is_open
        bench.storage.write_failure = None
        await until(lambda: bench.gate.is_open)
        assert (bench.written_count, bench.range_changes) == (1, [])

    on_a_loop(test)


def test_packages_that_go_elsewhere_meanwhile_do_not_hold_the_gate() -> None:
    async def test(bench: Bench) -> None:
        bench.storage.write_failure = FULL
        bench.write()
        await until(lambda: not bench.gate.is_open)
        # The connection to the broker is lost: what waited waits no more.
        await until(lambda: bool(bench.worker.drop("content_add.unknown.0")))
        await until(lambda: bench.gate.is_open)

    on_a_loop(test)
