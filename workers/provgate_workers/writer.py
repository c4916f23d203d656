"""Which range worker writes next, and on which thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

from provgate_broker.topology import Operation, RangePolicy
from provgate_storage.local import LocalStorage
from provgate_workers.assignment import Range
from provgate_workers.batch import BatchReport, store_batch
from provgate_workers.gate import StorageGate
from provgate_workers.range_worker import Batch, RangeWorker


class BatchWriter:
    """Writes the batches of range workers on storage threads. Belongs to one event loop.

    A batch is put together when a thread is free for it: the more waits until then, the larger it is. Range workers
    take turns in the order in which something began to wait for them.

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
        storage: LocalStorage,
        policy: RangePolicy,
        gate: StorageGate,
        *,
        thread_count: int,
        batch_size: int,
        on_written: Callable[[RangeWorker, Batch, BatchReport], None],
    ) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._storage = storage
        self._policy = policy
        self._gate = gate
        self._thread_count = thread_count
        self._batch_size = batch_size
        self._on_written = on_written
        self._threads = ThreadPoolExecutor(thread_count, thread_name_prefix="storage")
        self._turns: dict[Range, RangeWorker] = {}
        self._running_count = 0
        self._held = False
        self._lone = asyncio.Lock()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_idle(self) -> bool:
        """Whether no batch runs and none waits."""
        return not self._running_count and not any(worker.has_waiting for worker in self._turns.values())

    def offer(self, worker: RangeWorker) -> None:
        """Gives a range worker its turn where something waits for it."""
        if worker.has_waiting and not worker.busy:
            self._turns.setdefault(worker.range, worker)
        self.go_on()

    def go_on(self) -> None:
        """Starts what may start."""
        while self._turns and self._may_start():
            worker = self._turns.pop(next(iter(self._turns)))
            if worker.has_waiting:
                self._start(worker)

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
        return await self._store(operation, range_number, [body])

    async def probe(self) -> None:
        """Has the storage probed. Raises `StorageUnavailableError` as it does."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._storage.probe)

    def _may_start(self) -> bool:
        return not self._held and self._running_count < self._thread_count and self._gate.admits(self._running_count)

    def _start(self, worker: RangeWorker) -> None:
        batch = worker.take_batch(self._batch_size)
        worker.busy = True
        self._running_count += 1
        self._idle.clear()
        bodies = [delivery.body for delivery in batch.deliveries]
        stored = self._store(batch.operation, worker.range.number, bodies)
        stored.add_done_callback(partial(self._on_stored, worker, batch))

    def _store(self, operation: Operation, range_number: int, bodies: list[bytes]) -> asyncio.Future[BatchReport]:
        return asyncio.get_running_loop().run_in_executor(
            self._threads, store_batch, self._storage, self._policy, operation, range_number, bodies
        )

    def _on_stored(self, worker: RangeWorker, batch: Batch, stored: asyncio.Future[BatchReport]) -> None:
        worker.busy = False
        self._running_count -= 1
        error = stored.exception()
        if error is None:
            self._on_written(worker, batch, stored.result())
        elif not self.failed.done():
            self.failed.set_exception(error)
        if not self._running_count:
            self._idle.set()
        self.offer(worker)
