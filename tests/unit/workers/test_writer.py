"""Which packages share a batch, and when it starts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from provgate_broker.topology.policy import Exchange, Operation, RangePolicy, WriteMethod, binding_key, operations_of
from provgate_storage.database.local import LocalStorage
from provgate_storage.model import RelationType
from provgate_storage.rows.rows import Row
from provgate_workers.consume.range_queues import RangeWorker
from provgate_workers.program.assignment import Range
from provgate_workers.store.batch import BatchReport
from provgate_workers.store.batch_scheduler import Batch, BatchWriter
from provgate_workers.store.circuit_breaker import StorageGate
from tests.support.entries import encode_package
from tests.unit.deliveries import delivery

CONTENT_ADD = Operation(WriteMethod.CONTENT_ADD)
EARLY = Operation(WriteMethod.RELATION_ADD, RelationType.CNT_EARLY_IN_REV)
LATER = Operation(WriteMethod.RELATION_ADD, RelationType.CNT_IN_DIR)
FULL = 10


class HeldStorage:
    """Notes every write, and holds it until it is let go."""

    def __init__(self) -> None:
        self.writes: list[tuple[str, int]] = []
        self.may_end = threading.Semaphore(0)

    def write_rows(self, name: str, rows: Sequence[Row]) -> bool:
        self.writes.append((name, len(rows)))
        assert self.may_end.acquire(timeout=10)
        return True


class CountedThreads(ThreadPoolExecutor):
    """Counts the jobs that it is given."""

    job_count = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.job_count += 1
        return super().submit(fn, *args, **kwargs)


class Process:
    """The range workers of an exchange, and what writes for them."""

    def __init__(self) -> None:
        self.storage = HeldStorage()
        self.threads = CountedThreads(2)
        self.written: list[Batch] = []
        self.writer = BatchWriter(
            cast("LocalStorage", self.storage),
            RangePolicy(),
            StorageGate(),
            thread_count=2,
            batch_size=FULL,
            on_written=self._on_written,
        )
        self.writer._threads = self.threads
        self._workers = [_range_worker(number) for number in range(16)]

    def deliver(self, range_number: int, row_count: int, operation: Operation = CONTENT_ADD) -> None:
        ids = [bytes([range_number << 4]) * 20] * row_count
        entries = [(id,) for id in ids] if operation is CONTENT_ADD else [(id, id, b"path") for id in ids]
        worker = self._workers[range_number]
        worker.add(delivery(binding_key(operation, range_number), encode_package(entries)))
        self.writer.offer(worker)

    async def wait(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - threads change what is waited for
                await asyncio.sleep(0.001)

    async def settle(self) -> None:
        """Lets the loop do everything that waits for no thread."""
        for _ in range(20):
            await asyncio.sleep(0)

    def _on_written(self, batch: Batch, report: BatchReport) -> None:
        assert None not in report.outcomes
        self.written.append(batch)


def _range_worker(number: int) -> RangeWorker:
    operations = {binding_key(operation, number): operation for operation in operations_of(Exchange.CONTENT)}
    return RangeWorker(Range(Exchange.CONTENT, number), operations)


@asynccontextmanager
async def process() -> AsyncIterator[Process]:
    running = Process()
    yield running
    running.storage.may_end.release(100)
    await running.wait(lambda: running.writer.is_idle)


async def ranges_of_the_first_two_batches(running: Process) -> list[list[int]]:
    running.storage.may_end.release(2)
    await running.wait(lambda: len(running.written) == 2)
    return [[share.worker.range.number for share in batch.shares] for batch in running.written]


def run(scenario: Callable[[Process], object]) -> None:
    async def main() -> None:
        async with process() as running:
            await cast("asyncio.Future[None]", scenario(running))

    asyncio.run(main())


def test_a_package_alone_starts_at_once() -> None:
    async def scenario(running: Process) -> None:
        running.deliver(3, 1)
        await running.wait(lambda: running.storage.writes == [("content", 1)])

    run(scenario)


def test_what_came_together_is_one_batch_whatever_its_range() -> None:
    async def scenario(running: Process) -> None:
        for number in (3, 5, 9):
            running.deliver(number, 2)
        await running.wait(lambda: running.storage.writes == [("content", 6)])

    run(scenario)


def test_what_comes_while_its_operation_is_stored_gathers() -> None:
    async def scenario(running: Process) -> None:
        running.deliver(3, 1)
        await running.wait(lambda: len(running.storage.writes) == 1)
        for number in (3, 5, 9):
            running.deliver(number, 2)
        await running.settle()
        assert running.threads.job_count == 1
        assert await ranges_of_the_first_two_batches(running) == [[3], [5, 9, 3]]
        assert running.storage.writes == [("content", 1), ("content", 6)]

    run(scenario)


def test_another_operation_does_not_wait_for_it() -> None:
    async def scenario(running: Process) -> None:
        running.deliver(3, 1)
        await running.wait(lambda: len(running.storage.writes) == 1)
        running.deliver(3, 2)
        running.deliver(3, 1, EARLY)
        await running.wait(lambda: running.storage.writes[1:] == [(EARLY.relation, 1)])

    run(scenario)


def test_an_operation_has_its_turn_whatever_comes_of_another_one() -> None:
    async def scenario(running: Process) -> None:
        running.deliver(0, 1)
        running.deliver(5, 1)
        running.deliver(9, 1, LATER)
        await running.wait(lambda: len(running.storage.writes) == 2)
        running.deliver(5, 1, EARLY)
        for _ in range(5):
            running.deliver(0, 1)
            running.deliver(5, 1)
        running.storage.may_end.release(1)
        await running.wait(lambda: len(running.storage.writes) == 3)
        assert running.storage.writes[2] == (EARLY.relation, 1)

    run(scenario)


@pytest.mark.parametrize("row_counts", [[FULL], [4, 4, 2]])
def test_a_full_batch_starts_beside_it(row_counts: list[int]) -> None:
    async def scenario(running: Process) -> None:
        running.deliver(3, 1)
        await running.wait(lambda: len(running.storage.writes) == 1)
        for number, row_count in enumerate(row_counts, start=5):
            running.deliver(number, row_count)
        await running.wait(lambda: running.storage.writes[1:] == [("content", FULL)])

    run(scenario)


def test_a_range_is_in_one_batch_of_an_operation_at_a_time() -> None:
    async def scenario(running: Process) -> None:
        running.deliver(3, 1)
        await running.wait(lambda: len(running.storage.writes) == 1)
        running.deliver(3, FULL)
        await running.settle()
        assert running.threads.job_count == 1

    run(scenario)


def test_a_batch_ends_where_it_is_full() -> None:
    async def scenario(running: Process) -> None:
        for number in range(4):
            running.deliver(number, 4)
        await running.wait(lambda: running.storage.writes == [("content", 12)])
        assert await ranges_of_the_first_two_batches(running) == [[0, 1, 2], [3]]

    run(scenario)
