"""Which range workers write next, together, and on which thread."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from provgate_broker.topology import Operation, RangePolicy
from provgate_storage.local import RowStorage
from provgate_workers.assignment import Range
from provgate_workers.batch import BatchReport, RangedBody, store_batch
from provgate_workers.gate import StorageGate
from provgate_workers.range_worker import RangeWorker, Share

# Of the bodies of a batch: decoded, merged and as a document of the database they take several times as much.
_BATCH_MAX_BYTES: Final = 16 * 1024 * 1024


class BatchStorage(RowStorage, Protocol):
    """What batches are written to."""

    def probe(self) -> None:
        """Makes one round trip to the database. Raises `StorageUnavailableError` where it fails."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Packages of one operation that are stored together.

    Attributes:
        operation: what they add.
        shares: those of each range worker that takes part.
    """

    operation: Operation
    shares: list[Share]


class BatchWriter:
    """Writes the batches of range workers on storage threads. Belongs to one event loop.

    A batch is put together when a thread is free for it: the more waits until then, the larger it is. Operations take
    turns, and of one operation the range workers, in the order in which something began to wait for them; a batch takes
    all of them along, as far as it has room. While a batch of an operation is stored, no other one of it starts before
    it is full: many small transactions at once cost a database up to half more than a few large ones one after the
    other, and are no faster.

    Args:
        storage: an open storage.
        policy: the ranges.
        gate: says whether the storage can be written to.
        thread_count: how many batches are written at once.
        batch_size: how many entries make a batch full.
        on_written: is told what became of a batch.

    Attributes:
        failed: raises what ends the program.
    """

    def __init__(
        self,
        storage: BatchStorage,
        policy: RangePolicy,
        gate: StorageGate,
        *,
        thread_count: int,
        batch_size: int,
        on_written: Callable[[Batch, BatchReport], None],
    ) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._storage = storage
        self._policy = policy
        self._gate = gate
        self._thread_count = thread_count
        self._batch_size = batch_size
        self._on_written = on_written
        self._threads = ThreadPoolExecutor(thread_count, thread_name_prefix="storage")
        # Of each operation the range workers that have packages and are not in a batch of it, longest waiting first.
        self._turns: dict[Operation, dict[Range, RangeWorker]] = {}
        # How many batches of each operation are being stored.
        self._running: Counter[Operation] = Counter()
        self._held = False
        self._called_soon = False
        self._lone = asyncio.Lock()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_idle(self) -> bool:
        """Whether no batch runs and none waits."""
        return not self._running.total() and not any(map(self._waiting_row_count, self._turns))

    def offer(self, worker: RangeWorker) -> None:
        """Gives a range worker its turn where something waits for it."""
        for operation in worker.waiting_operations:
            self._await_turn(worker, operation)
        if not self._called_soon:
            # Not at once: what else came with the same read of the socket goes along.
            self._called_soon = True
            asyncio.get_running_loop().call_soon(self._go_on_soon)

    def go_on(self) -> None:
        """Starts what may start."""
        while self._may_start():
            operation = next(filter(self._may_be_next, self._turns), None)
            if operation is None:
                return
            self._start(self._take_batch(operation))

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Starts no batch while this is entered, which happens once the running ones have ended."""
        async with self._lone:
            self._held = True
            try:
                await self._idle.wait()
                yield
            finally:
                self._held = False
                self.go_on()

    async def stop(self) -> None:
        """Starts no batch any more, and waits until the running ones have ended. Nobody enters `alone` after it."""
        await self._lone.acquire()
        self._held = True
        await self._idle.wait()

    async def write(self, operation: Operation, range_number: int, body: bytes) -> BatchReport:
        """Writes a package by itself, whatever else is written. For use in `alone`."""
        return await self._store(operation, [(range_number, body)])

    async def probe(self) -> None:
        """Has the storage probed. Raises `StorageUnavailableError` as it does."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._storage.probe)

    def _go_on_soon(self) -> None:
        self._called_soon = False
        self.go_on()

    def _await_turn(self, worker: RangeWorker, operation: Operation) -> None:
        if worker.waiting_row_count(operation) and operation not in worker.busy:
            self._turns.setdefault(operation, {}).setdefault(worker.range, worker)

    def _may_start(self) -> bool:
        running_count = self._running.total()
        return not self._held and running_count < self._thread_count and self._gate.admits(running_count)

    def _may_be_next(self, operation: Operation) -> bool:
        # Packages that waited may have been taken back since.
        return self._waiting_row_count(operation) >= (self._batch_size if self._running[operation] else 1)

    def _waiting_row_count(self, operation: Operation) -> int:
        return sum(worker.waiting_row_count(operation) for worker in self._turns[operation].values())

    def _take_batch(self, operation: Operation) -> Batch:
        """Takes packages of an operation, one of which waits. Where some are left its turn is the last."""
        shares: list[Share] = []
        row_count, size_bytes = self._batch_size, _BATCH_MAX_BYTES
        workers = self._turns.pop(operation)
        while workers and row_count > 0 and size_bytes > 0:
            worker = workers.pop(next(iter(workers)))
            share = worker.take(operation, row_count, size_bytes)
            if share.deliveries:
                worker.busy.add(operation)
                shares.append(share)
                row_count -= share.row_count
                size_bytes -= share.size_bytes
        if workers:
            self._turns[operation] = workers
        return Batch(operation, shares)

    def _start(self, batch: Batch) -> None:
        self._running[batch.operation] += 1
        self._idle.clear()
        bodies = [(share.worker.range.number, delivery.body) for share in batch.shares for delivery in share.deliveries]
        stored = self._store(batch.operation, bodies)
        stored.add_done_callback(partial(self._on_stored, batch))

    def _store(self, operation: Operation, bodies: list[RangedBody]) -> asyncio.Future[BatchReport]:
        return asyncio.get_running_loop().run_in_executor(
            self._threads, store_batch, self._storage, self._policy, operation, bodies
        )

    def _on_stored(self, batch: Batch, stored: asyncio.Future[BatchReport]) -> None:
        self._running[batch.operation] -= 1
        for share in batch.shares:
            share.worker.busy.discard(batch.operation)
        error = stored.exception()
        if error is None:
            self._on_written(batch, stored.result())
        elif not self.failed.done():
            self.failed.set_exception(error)
        if not self._running.total():
            self._idle.set()
        for share in batch.shares:
            self._await_turn(share.worker, batch.operation)
        self.go_on()
