"""Which range workers write next, together, and on which thread."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol

from provgate_broker.consume.delivery import Delivery
from provgate_broker.dead_letters.messages import DeadLetterReason
from provgate_broker.topology.policy import OPERATIONS, Operation, RangePolicy
from provgate_runtime.outage import Outage
from provgate_storage.database.local import RowStorage
from provgate_storage.errors import (
    RetryableStorageError,
    StorageConflictError,
    StorageForbiddenError,
    StorageTimeoutError,
)
from provgate_workers.consume.range_queues import RangeWorker, Share
from provgate_workers.program.assignment import Range
from provgate_workers.store.batch import BatchReport, RangedBody, Refused, Stored, store_batch
from provgate_workers.store.circuit_breaker import StorageGate

logger = logging.getLogger(__name__)

_PAUSE_FIRST_S: Final = 0.2
_PAUSE_MAX_S: Final = 5.0
_PAUSE_DOUBLINGS: Final = 5

# After a time limit passed, batches grow again by this part of a full one with each that is stored.
_GROWTH: Final = 10


def is_of_operation(trouble: RetryableStorageError | None) -> bool:
    """Returns whether a failure says something of one operation: others may be stored meanwhile.

    A lock that is not granted, conflicts without end, a time limit, or a missing right: the storage answered.
    """
    return isinstance(trouble, StorageConflictError | StorageForbiddenError | StorageTimeoutError)


class OperationPace:
    """Slows down an operation whose batches fail: it pauses, and after a time limit it takes half as many rows.

    Belongs to one event loop.

    Args:
        operation: the operation.
        batch_size: how many rows make a batch full.

    Attributes:
        row_limit: how many rows the next batch takes; 1 is a package alone.
        stalled: whether the last batch failed. The next one is a trial.
        paused: whether it is too early for a trial.
    """

    def __init__(self, operation: Operation, batch_size: int) -> None:
        self.row_limit = batch_size
        self.stalled = False
        self.paused = False
        self._operation = operation
        self._batch_size = batch_size
        self._failure_count = 0
        self._outage = Outage(logger, action="storage.stall")

    def failed(self, trouble: RetryableStorageError, row_count: int) -> float:
        """Notes that a batch of so many rows failed. Returns how long to pause before `resume` is called."""
        text = f"the storage is in trouble, packages of {self._operation.label} wait"
        self._outage.failed(text, trouble, operation=self._operation.label)
        if isinstance(trouble, StorageTimeoutError):
            # Of the limit too: a batch holds more where its last package does.
            self.row_limit = max(1, min(self.row_limit, row_count) // 2)
        self.stalled = self.paused = True
        pause_s = min(_PAUSE_MAX_S, _PAUSE_FIRST_S * 2.0 ** min(self._failure_count, _PAUSE_DOUBLINGS))
        self._failure_count += 1
        return pause_s * random.uniform(0.5, 1.0)

    def resume(self, *, waiting: bool) -> None:
        """Ends a pause. What comes next is no trial where nothing waits to be tried, or something was stored since."""
        self.paused = False
        self.stalled = self.stalled and waiting

    def stored(self) -> None:
        """Notes that a batch is stored."""
        self.row_limit = min(self._batch_size, self.row_limit + max(1, self._batch_size // _GROWTH))
        self.stalled = self.paused = False
        self._failure_count = 0
        self._outage.ended(f"packages of {self._operation.label} are stored again", operation=self._operation.label)


# Of the bodies of a batch: decoded, merged and as a document of the database they take several times as much.
_BATCH_MAX_BYTES: Final = 16 * 1024 * 1024

STALLED_MAX_COUNT: Final = 4
"""How many batches that stall are written beside the others."""

# When a batch counts as one that stalls.
_STALLS_AFTER_S: Final = 2.0

ALONE_S: Final = 30.0
"""How long everything waits for the batches that run, so that a package can be written alone."""

# When a package alone is tried again for which the time limit passed.
_APART_FIRST_S: Final = 0.5
_APART_MAX_S: Final = 60.0
_APART_DOUBLINGS: Final = 7

# How often the time limit may pass for a package alone while others of its operation are stored.
_TIMEOUTS_MAX_COUNT: Final = 5

_TOO_SLOW: Final = "storing it alone takes longer than the time limit of the storage, each time, and others are stored"


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

    @property
    def deliveries(self) -> list[Delivery]:
        """The packages."""
        return [delivery for share in self.shares for delivery in share.deliveries]

    @property
    def row_count(self) -> int:
        """The rows that they say that they hold."""
        return sum(share.row_count for share in self.shares)

    @property
    def size_bytes(self) -> int:
        """The size of their bodies."""
        return sum(share.size_bytes for share in self.shares)


@dataclass(eq=False, slots=True)
class _Run:
    """A batch that is being stored, or a package that is to be tried again alone.

    Attributes:
        batch: what is stored.
        stalls: whether it takes no thread from other operations, since it takes long or is a trial.
        apart: whether it is a package alone for which the time limit passed before.
        try_count: of such a package, how often it was tried.
        timeout_count: of these, how often others of its operation were stored meanwhile.
        stored_count: how many batches of its operation had been stored when it was started.
    """

    batch: Batch
    stalls: bool = False
    apart: bool = False
    try_count: int = 0
    timeout_count: int = 0
    stored_count: int = 0


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
        on_written: is told what became of a batch. What is to be tried again, and is in hand, waits again afterwards.

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
        # One more for probes.
        thread_count += STALLED_MAX_COUNT + 1
        self._threads = ThreadPoolExecutor(thread_count, thread_name_prefix="storage")
        # Of each operation the range workers that have packages and are not in a batch of it, longest waiting first.
        self._turns: dict[Operation, dict[Range, RangeWorker]] = {}
        self._paces = {operation: OperationPace(operation, batch_size) for operation in OPERATIONS}
        self._runs: set[_Run] = set()
        # Packages that are tried again alone, once it is time.
        self._due: deque[_Run] = deque()
        self._stored_counts: Counter[Operation] = Counter()
        self._held = False
        self._called_soon = False
        self._lone = asyncio.Lock()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_idle(self) -> bool:
        """Whether no batch runs and none waits."""
        return not self._runs and not any(map(self._waiting_row_count, self._turns))

    @property
    def stalled_count(self) -> int:
        """How many operations are slowed down, or have a package written alone since it takes too long."""
        apart = {run.batch.operation for run in self._runs if run.apart}
        # One whose packages are gone, to another process say, is tried again only with the next that comes.
        slow = {
            operation
            for operation, pace in self._paces.items()
            if pace.stalled and (pace.paused or self._is_in_work(operation))
        }
        return len(apart | slow)

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
        while (run := self._next_run()) is not None:
            self._start(run)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Starts no batch while this is entered, which happens once the running ones have ended.

        Raises:
            TimeoutError: one of them takes too long for others to wait.
        """
        async with self._lone:
            self._held = True
            try:
                async with asyncio.timeout(ALONE_S):
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
        report = await self._store(operation, [(range_number, body)])
        self._note_pace(operation, report, row_count=1)
        return report

    async def probe(self) -> None:
        """Has the storage probed. Raises `StorageUnavailableError` as it does."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._storage.probe)

    def _go_on_soon(self) -> None:
        self._called_soon = False
        self.go_on()

    def _await_turn(self, worker: RangeWorker, operation: Operation) -> None:
        if worker.waiting_row_count(operation) and operation not in worker.busy:
            self._turns.setdefault(operation, {}).setdefault(worker.range, worker)

    def _next_run(self) -> _Run | None:
        stalling_count = sum(run.stalls for run in self._runs)
        if (
            self._held
            or len(self._runs) >= self._thread_count + STALLED_MAX_COUNT
            or not self._gate.admits(len(self._runs) - stalling_count)
        ):
            return None
        may_start = len(self._runs) - stalling_count < self._thread_count
        may_try = stalling_count < STALLED_MAX_COUNT
        for operation in self._turns:
            pace = self._paces[operation]
            own = [run for run in self._runs if run.batch.operation == operation and not run.apart]
            if pace.stalled:
                may_be_next = may_try and not pace.paused and not own
            else:
                may_be_next = may_start and not any(run.stalls for run in own)
            # Packages that waited may have been taken back since.
            if may_be_next and self._waiting_row_count(operation) >= (pace.row_limit if own else 1):
                return _Run(self._take_batch(operation, pace.row_limit), stalls=pace.stalled)
        if may_try:
            apart = {run.batch.operation for run in self._runs if run.apart}
            for run in self._due:
                if run.batch.operation not in apart:
                    self._due.remove(run)
                    return run
        return None

    def _waiting_row_count(self, operation: Operation) -> int:
        return sum(worker.waiting_row_count(operation) for worker in self._turns[operation].values())

    def _take_batch(self, operation: Operation, row_count: int) -> Batch:
        """Takes packages of an operation, one of which waits. Where some are left its turn is the last."""
        shares: list[Share] = []
        size_bytes = _BATCH_MAX_BYTES
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

    def _start(self, run: _Run) -> None:
        self._runs.add(run)
        self._idle.clear()
        batch = run.batch
        run.stored_count = self._stored_counts[batch.operation]
        bodies = [(share.worker.range.number, delivery.body) for share in batch.shares for delivery in share.deliveries]
        timer = asyncio.get_running_loop().call_later(_STALLS_AFTER_S, self._on_stall, run)
        stored = self._store(batch.operation, bodies)
        stored.add_done_callback(lambda _: timer.cancel())
        stored.add_done_callback(partial(self._on_stored, run))

    def _on_stall(self, run: _Run) -> None:
        run.stalls = True
        self.go_on()

    def _store(self, operation: Operation, bodies: list[RangedBody]) -> asyncio.Future[BatchReport]:
        return asyncio.get_running_loop().run_in_executor(
            self._threads, store_batch, self._storage, self._policy, operation, bodies
        )

    def _on_stored(self, run: _Run, stored: asyncio.Future[BatchReport]) -> None:
        self._runs.discard(run)
        batch = run.batch
        for share in () if run.apart else batch.shares:
            share.worker.busy.discard(batch.operation)
        try:
            self._finish(run, stored.result())
        except Exception as error:  # noqa: BLE001 - of a storage, or a fault of ours: the broker delivers again
            if not self.failed.done():
                self.failed.set_exception(error)
        if not self._runs:
            self._idle.set()
        for share in batch.shares:
            self._await_turn(share.worker, batch.operation)
        self.go_on()

    def _finish(self, run: _Run, report: BatchReport) -> None:
        batch = run.batch
        is_lone_timeout = len(batch.deliveries) == 1 and isinstance(report.trouble, StorageTimeoutError)
        if is_lone_timeout and run.apart and self._stored_counts[batch.operation] > run.stored_count:
            run.timeout_count += 1
        if run.timeout_count >= _TIMEOUTS_MAX_COUNT and batch.deliveries[0].in_hand:
            # One that the broker has taken back is in other hands, which may store it.
            is_lone_timeout = False
            refused = Refused(DeadLetterReason.UNEXPECTED, _TOO_SLOW)
            report = BatchReport([refused], None, report.stray_row_counts)
        elif not (is_lone_timeout and run.apart):
            self._note_pace(batch.operation, report, batch.row_count)
        self._on_written(batch, report)
        outcomes = iter(report.outcomes)
        for share in batch.shares:
            undecided = [
                delivery
                for delivery, outcome in zip(share.deliveries, outcomes, strict=False)
                if outcome is None and delivery.in_hand
            ]
            if not undecided:
                continue
            if is_lone_timeout:
                self._set_apart(run)
            else:
                share.worker.put_back(undecided)

    def _set_apart(self, run: _Run) -> None:
        again = replace(run, stalls=True, apart=True, try_count=run.try_count + 1)
        pause_s = min(_APART_MAX_S, _APART_FIRST_S * 2.0 ** min(run.try_count, _APART_DOUBLINGS))
        asyncio.get_running_loop().call_later(pause_s, self._fall_due, again)

    def _fall_due(self, run: _Run) -> None:
        self._due.append(run)
        self.go_on()

    def _note_pace(self, operation: Operation, report: BatchReport, row_count: int) -> None:
        pace = self._paces[operation]
        if report.trouble is None:
            self._stored_counts[operation] += any(isinstance(outcome, Stored) for outcome in report.outcomes)
            pace.stored()
        elif is_of_operation(report.trouble):
            pause_s = pace.failed(report.trouble, row_count)
            asyncio.get_running_loop().call_later(pause_s, self._resume, operation)

    def _resume(self, operation: Operation) -> None:
        self._paces[operation].resume(waiting=self._is_in_work(operation))
        self.go_on()

    def _is_in_work(self, operation: Operation) -> bool:
        """Returns whether packages of an operation wait, or are being stored, but for those apart."""
        running = any(run.batch.operation == operation and not run.apart for run in self._runs)
        return running or (operation in self._turns and self._waiting_row_count(operation) > 0)
