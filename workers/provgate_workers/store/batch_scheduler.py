"""Decides which waiting packages are stored next, together, and starts them on storage threads."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final, TypeAlias

from provgate_broker.dead_letters.messages import DeadLetterReason
from provgate_broker.topology.policy import OPERATIONS, Operation, parse_binding_key
from provgate_storage.errors import StorageTimeoutError
from provgate_workers.consume.range_queues import RangeQueue
from provgate_workers.package import Package, Refused, State, Stored
from provgate_workers.store.batch import BatchReport, StorageThreads
from provgate_workers.store.circuit_breaker import CircuitBreaker, is_of_operation
from provgate_workers.store.throttle import Throttle

# Of the bodies of a batch. Decoded, merged and as a document of the database they take several times as much.
_BATCH_MAX_BYTES: Final = 16 * 1024 * 1024

STALLED_MAX_COUNT: Final = 4
"""The most stalled batches that are stored beside the others."""

# A batch that runs for this long counts as stalled.
_STALLS_AFTER_S: Final = 2.0

ALONE_S: Final = 30.0
"""The longest that everything waits for the running batches, so that a package can be stored alone."""

# When a package that timed out alone is tried again.
_RETRY_FIRST_S: Final = 0.5
_RETRY_MAX_S: Final = 60.0
_RETRY_DOUBLINGS: Final = 7

# The most timeouts of a package alone while others of its operation are stored.
_TIMEOUTS_MAX_COUNT: Final = 5

_TOO_SLOW: Final = "storing it alone takes longer than the time limit of the storage, each time, and others are stored"


@dataclass(eq=False, slots=True)
class Batch:
    """Packages of one operation that are stored together.

    Attributes:
        operation: what they add.
        packages: the packages, those of one queue after those of another.
        queues: the queues that take part, which have no other batch meanwhile. Empty for a retry.
        stalls: whether it takes no thread from other operations: it runs for long, or is a trial or a retry.
        try_count: how often its only package timed out alone. If it did, the batch is a retry.
        timeout_count: of these, how often others of its operation were stored meanwhile.
        stored_count: how many batches of its operation had been stored when it was started.
    """

    operation: Operation
    packages: list[Package]
    queues: list[RangeQueue]
    stalls: bool = False
    try_count: int = 0
    timeout_count: int = 0
    stored_count: int = 0

    @property
    def is_retry(self) -> bool:
        """Whether it is a package that is tried again alone."""
        return self.try_count > 0

    @property
    def row_count(self) -> int:
        """The rows of its packages, as they claim."""
        return sum(package.row_count for package in self.packages)


@dataclass(frozen=True, slots=True)
class BatchDone:
    """A storage thread has ended with a batch."""

    batch: Batch
    done: asyncio.Future[BatchReport]


@dataclass(frozen=True, slots=True)
class Wakeup:
    """A package may be able to go on: a pause has ended, or a thread or memory is free."""


SchedulerEvent: TypeAlias = BatchDone | Wakeup


class BatchScheduler:
    """Schedules the packages of all work queues. Belongs to one event loop.

    A batch is formed when a thread is free: the more packages wait by then, the larger it is. Operations take turns.
    Within one operation its queues take turns, in the order in which packages began to wait; a batch takes all of them
    that fit. While a batch of an operation is stored, no other of that operation starts before it is full: many small
    transactions at once cost a database up to half more than a few large ones in turn, and are no faster.

    An operation that stalls keeps its packages and leaves the threads to the others: see `Throttle`. A package alone
    that times out is retried beside the others, and refused after five timeouts while others of its operation are
    stored.

    Args:
        queues: the names of the work queues.
        threads: store batches.
        breaker: says whether a batch may start.
        thread_count: the most batches that are stored at once, stalled ones left out.
        batch_size: the rows of a full batch.
        emit: called with events, on the event loop.
    """

    def __init__(
        self,
        queues: Iterable[str],
        threads: StorageThreads,
        breaker: CircuitBreaker,
        thread_count: int,
        batch_size: int,
        emit: Callable[[SchedulerEvent], None],
    ) -> None:
        self._queues = {name: RangeQueue(name) for name in queues}
        self._threads = threads
        self._breaker = breaker
        self._thread_count = thread_count
        self._emit = emit
        # The queues of each operation that have packages and are in no batch, longest waiting first.
        self._turns: dict[Operation, dict[RangeQueue, None]] = {}
        self._throttles = {operation: Throttle(operation, batch_size) for operation in OPERATIONS}
        self._running: set[Batch] = set()
        # Retries whose pause has ended.
        self._due: deque[Batch] = deque()
        self._stored_counts: Counter[Operation] = Counter()
        self._held = False
        self._alone = asyncio.Lock()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_idle(self) -> bool:
        """Whether no batch runs and no package waits."""
        return not self._running and not any(map(self._waiting_row_count, self._turns))

    @property
    def stalled_count(self) -> int:
        """The number of operations that are slowed down, or have a retry that runs."""
        retried = {batch.operation for batch in self._running if batch.is_retry}
        # If its packages are gone, to another process for example, it is tried again only when the next one comes.
        slow = {
            operation
            for operation, throttle in self._throttles.items()
            if throttle.stalled and (throttle.paused or self._is_in_work(operation))
        }
        return len(retried | slow)

    def add(self, package: Package) -> None:
        """Lets a package wait for its turn."""
        queue = self._queues[package.delivery.queue]
        queue.append(package)
        self._await_turn(queue)

    def drop(self, queue: str) -> list[Package]:
        """Forgets the packages of a queue that wait, and returns them."""
        return self._queues[queue].clear()

    def start_batches(self) -> None:
        """Starts the batches that may start. Call it after every event."""
        while (batch := self._next()) is not None:
            self._start(batch)

    def finish(self, batch: Batch, report: BatchReport) -> BatchReport:
        """Ends a batch: its undecided packages that are in hand wait again, or are retried alone.

        Returns the report, in which a package that timed out too often is refused.
        """
        self._running.discard(batch)
        if not self._running:
            self._idle.set()
        is_lone_timeout = len(batch.packages) == 1 and isinstance(report.trouble, StorageTimeoutError)
        if is_lone_timeout and batch.is_retry and self._stored_counts[batch.operation] > batch.stored_count:
            batch.timeout_count += 1
        # A package that the broker has taken back is in other hands, which may store it.
        if is_lone_timeout and batch.timeout_count >= _TIMEOUTS_MAX_COUNT and batch.packages[0].delivery.in_hand:
            report = BatchReport([Refused(DeadLetterReason.UNEXPECTED, _TOO_SLOW)], None, report.stray_row_counts)
        elif not (is_lone_timeout and batch.is_retry):
            self._note(batch.operation, report, batch.row_count)
        undecided = [
            package
            for package, outcome in zip(batch.packages, report.outcomes, strict=True)
            if outcome is None and package.delivery.in_hand
        ]
        if is_lone_timeout and undecided:
            again = replace(batch, queues=[], stalls=True, try_count=batch.try_count + 1)
            pause_s = min(_RETRY_MAX_S, _RETRY_FIRST_S * 2.0 ** min(batch.try_count, _RETRY_DOUBLINGS))
            asyncio.get_running_loop().call_later(pause_s, self._retry, again)
        else:
            for name, packages in groupby(undecided, key=lambda package: package.delivery.queue):
                self._queues[name].put_back(packages)
        for queue in batch.queues:
            queue.in_batch = False
        for queue in dict.fromkeys(self._queues[package.delivery.queue] for package in batch.packages):
            self._await_turn(queue)
        return report

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Waits until the running batches have ended, and starts no other inside the block.

        Raises:
            TimeoutError: one of them takes too long for the others to wait.
        """
        async with self._alone:
            self._held = True
            try:
                async with asyncio.timeout(ALONE_S):
                    await self._idle.wait()
                yield
            finally:
                self._held = False
                self._emit(Wakeup())

    async def store_alone(self, package: Package) -> BatchReport:
        """Stores a package that is in no queue here. For use in `alone`. Raises `TopologyError` for a wrong source."""
        operation, range_number = parse_binding_key(package.source[1])
        package.state = State.STORING
        report = await self._threads.store(operation, [(range_number, package.delivery.body)])
        self._note(operation, report, row_count=1)
        return report

    async def stop(self) -> None:
        """Starts no batch any more, and waits until the running ones have ended. `alone` is not entered again."""
        await self._alone.acquire()
        self._held = True
        await self._idle.wait()

    def _await_turn(self, queue: RangeQueue) -> None:
        if queue.row_count and not queue.in_batch:
            self._turns.setdefault(queue.operation, {}).setdefault(queue)

    def _next(self) -> Batch | None:
        stalled_count = sum(batch.stalls for batch in self._running)
        regular_count = len(self._running) - stalled_count
        is_full = len(self._running) >= self._thread_count + STALLED_MAX_COUNT
        if self._held or is_full or not self._breaker.allows(regular_count):
            return None
        may_start = regular_count < self._thread_count
        may_try = stalled_count < STALLED_MAX_COUNT
        for operation in self._turns:
            throttle = self._throttles[operation]
            own = [batch for batch in self._running if batch.operation == operation and not batch.is_retry]
            if throttle.stalled:
                is_next = may_try and not throttle.paused and not own
            else:
                is_next = may_start and not any(batch.stalls for batch in own)
            # Packages that waited may have been dropped since.
            if is_next and self._waiting_row_count(operation) >= (throttle.row_limit if own else 1):
                return self._take_batch(operation, throttle)
        if may_try:
            retried = {batch.operation for batch in self._running if batch.is_retry}
            for retry in self._due:
                if retry.operation not in retried:
                    self._due.remove(retry)
                    return retry
        return None

    def _take_batch(self, operation: Operation, throttle: Throttle) -> Batch:
        """Takes packages of an operation, one of which waits. The queues that are left take their turn last."""
        batch = Batch(operation, [], [], stalls=throttle.stalled)
        row_count, size_bytes = throttle.row_limit, _BATCH_MAX_BYTES
        queues = self._turns.pop(operation)
        while queues and row_count > 0 and size_bytes > 0:
            queue = next(iter(queues))
            del queues[queue]
            packages = queue.take(row_count, size_bytes)
            if packages:
                queue.in_batch = True
                batch.queues.append(queue)
                batch.packages += packages
                row_count -= sum(package.row_count for package in packages)
                size_bytes -= sum(len(package.delivery.body) for package in packages)
        if queues:
            self._turns[operation] = queues
        return batch

    def _start(self, batch: Batch) -> None:
        self._running.add(batch)
        self._idle.clear()
        batch.stored_count = self._stored_counts[batch.operation]
        bodies = [
            (self._queues[package.delivery.queue].range_number, package.delivery.body) for package in batch.packages
        ]
        stall_timer = asyncio.get_running_loop().call_later(_STALLS_AFTER_S, self._stall, batch)

        def on_done(done: asyncio.Future[BatchReport]) -> None:
            stall_timer.cancel()
            self._emit(BatchDone(batch, done))

        self._threads.store(batch.operation, bodies).add_done_callback(on_done)

    def _stall(self, batch: Batch) -> None:
        batch.stalls = True
        self._emit(Wakeup())

    def _retry(self, batch: Batch) -> None:
        self._due.append(batch)
        self._emit(Wakeup())

    def _resume(self, operation: Operation) -> None:
        self._throttles[operation].resume(waiting=self._is_in_work(operation))
        self._emit(Wakeup())

    def _note(self, operation: Operation, report: BatchReport, row_count: int) -> None:
        throttle = self._throttles[operation]
        if report.trouble is None:
            self._stored_counts[operation] += any(isinstance(outcome, Stored) for outcome in report.outcomes)
            throttle.stored()
        elif is_of_operation(report.trouble):
            pause_s = throttle.failed(report.trouble, row_count)
            asyncio.get_running_loop().call_later(pause_s, self._resume, operation)

    def _waiting_row_count(self, operation: Operation) -> int:
        return sum(queue.row_count for queue in self._turns.get(operation, ()))

    def _is_in_work(self, operation: Operation) -> bool:
        """Returns whether packages of an operation wait or are being stored, retries left out."""
        is_running = any(batch.operation == operation and not batch.is_retry for batch in self._running)
        return is_running or self._waiting_row_count(operation) > 0
