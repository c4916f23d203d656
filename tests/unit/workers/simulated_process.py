"""A process of range workers whose clock, storage threads and storage a test drives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar
from unittest import mock

from prometheus_client import CollectorRegistry

from provgate_broker.amqp.connection import AmqpParameters
from provgate_broker.settings import RabbitMqSettings
from provgate_broker.topology.policy import Exchange, Operation, RangePolicy, WriteMethod
from provgate_storage.errors import DataRefusedError, StorageConflictError, StorageTimeoutError, StorageUnavailableError
from provgate_storage.model import EntityType, RelationData, RevisionData
from provgate_storage.rows.rows import Row
from provgate_workers.consume import host
from provgate_workers.metrics import WorkerMetrics
from provgate_workers.program.assignment import Assignment, all_ranges
from provgate_workers.program.messages import ChildReport
from provgate_workers.settings import WorkerConfiguration
from provgate_workers.settle import outbox
from provgate_workers.store import batch, batch_scheduler
from tests.support.entries import Entry
from tests.support.reference import InMemoryProvenanceStorage
from tests.unit.workers.simulated_broker import SimulatedBroker, SimulatedConsumer, SimulatedPublisher

T = TypeVar("T")

REFUSED_ID = b"\xee" * 20
UNEXPECTED_ID = b"\xdd" * 20


class Trouble(Enum):
    """What the storage answers writes with."""

    NONE = "none"
    AWAY = "away"
    CONFLICT = "conflict"
    TIMEOUT = "too slow"
    LOST_COMMIT = "committed, and the connection lost before it said so"


_ERRORS = {
    Trouble.AWAY: StorageUnavailableError("away"),
    Trouble.CONFLICT: StorageConflictError("deadlock"),
    Trouble.TIMEOUT: StorageTimeoutError("too slow"),
}


class SimulatedStorage(InMemoryProvenanceStorage):
    """Stores as the reference does, unless it is in trouble; refuses one id, and fails at another in an unknown way.

    Attributes:
        trouble: what all writes end with.
        failure: returns what a write ends with, from its name and rows; None for success.
        calls: the name and row count of each write.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trouble = Trouble.NONE
        self.failure: Callable[[str, Sequence[Row]], Exception | None] = lambda _name, _rows: None
        self.calls: list[tuple[str, int]] = []

    def probe(self) -> None:
        if self.trouble is Trouble.AWAY:
            raise _ERRORS[Trouble.AWAY]

    def write_rows(self, name: str, rows: Sequence[Row]) -> bool:
        self.calls.append((name, len(rows)))
        error = _ERRORS.get(self.trouble) or self.failure(name, rows)
        if error is not None:
            raise error
        ids = {row[0] for row in rows}
        if REFUSED_ID in ids:
            raise DataRefusedError("this id")
        if UNEXPECTED_ID in ids:
            raise ZeroDivisionError
        super().write_rows(name, rows)
        if self.trouble is Trouble.LOST_COMMIT:
            raise StorageUnavailableError("gone")
        return True


def holds(storage: InMemoryProvenanceStorage, operation: Operation, entries: Sequence[Entry]) -> bool:
    """Returns whether a storage holds entries, or what merged with them."""
    if operation.relation is not None:
        rows = storage.relation_get_all(operation.relation)
        return all(RelationData(dst, path) in rows.get(src, ()) for src, dst, path in entries)
    if operation.method is WriteMethod.LOCATION_ADD:
        return {path for (path,) in entries} <= storage.location_get_all()
    ids = {entry[0] for entry in entries}
    known = storage.entity_get_all(EntityType(operation.method.value.removesuffix("_add")))
    return ids <= known and all(_is_merged(storage, operation.method, entry) for entry in entries)


def _is_merged(storage: InMemoryProvenanceStorage, method: WriteMethod, entry: Entry) -> bool:
    id, value = (*entry, None)[:2]
    if value is None:
        return True
    if method is WriteMethod.ORIGIN_ADD:
        return id in storage.origin_get([id])
    if method is WriteMethod.REVISION_ADD:
        found = storage.revision_get([id]).get(id, RevisionData(None, None))
        return _is_no_later(found.date, value.date) and (value.origin is None or found.origin is not None)
    read = storage.content_get if method is WriteMethod.CONTENT_ADD else storage.directory_get
    return _is_no_later(read([id]).get(id), value)


def _is_no_later(found: datetime | None, sent: datetime | None) -> bool:
    return sent is None or (found is not None and found <= sent)


class _Loop(asyncio.SelectorEventLoop):
    """A loop on whose clock no time passes by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def time(self) -> float:
        return self.now_s

    @property
    def is_quiet(self) -> bool:
        """Whether no callback is ready and no timer is due."""
        ready: Any = getattr(self, "_ready")  # noqa: B009  # asyncio has nothing public that says so
        timers: Any = getattr(self, "_scheduled")  # noqa: B009
        return not ready and not any(timer.when() <= self.now_s for timer in timers if not timer.cancelled())


class _Threads:
    """Stands for a `ThreadPoolExecutor`: a job is done when the test says so."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.jobs.append((future, function, arguments))
        return future

    def finish(self, index: int) -> None:
        future, function, arguments = self.jobs.pop(index)
        try:
            future.set_result(function(*arguments))
        except Exception as error:  # noqa: BLE001 - as an executor does
            future.set_exception(error)


class SimulatedProcess:
    """Hosts all ranges of a simulated broker.

    Args:
        broker: the broker.
        storage: the storage.
        range_count: the ranges of each exchange.
        settings: of the program, where they are not the defaults.

    Attributes:
        loop_errors: what the loop reports as not caught.
        registry: where its metrics are.
    """

    def __init__(
        self, broker: SimulatedBroker, storage: SimulatedStorage, range_count: int = 1, **settings: Any
    ) -> None:
        self.loop_errors: list[object] = []
        self.registry = CollectorRegistry()
        self._loop = _Loop()
        self._loop.set_exception_handler(lambda _, context: self.loop_errors.append(context))
        self._threads = _Threads()
        self._seams = (
            mock.patch.object(batch, "_CONFLICT_WAIT_MAX_S", 0.0),
            mock.patch.object(batch, "_UNEXPECTED_WAIT_MAX_S", 0.0),
            mock.patch.object(batch, "ThreadPoolExecutor", return_value=self._threads),
            mock.patch.object(outbox, "Publisher", lambda _parameters, _name, told: SimulatedPublisher(broker, told)),
            mock.patch.object(
                host,
                "WorkConsumer",
                lambda _parameters, _name, delays_s, prefetch_count, emit: SimulatedConsumer(
                    broker, delays_s, prefetch_count, emit
                ),
            ),
        )
        for seam in self._seams:
            seam.start()
        policy = RangePolicy(dict.fromkeys(Exchange, range_count))
        assignment = Assignment(tuple(all_ranges(policy)), ())
        configuration = WorkerConfiguration(
            RabbitMqSettings(**settings), AmqpParameters("amqp://localhost", 10), policy, (assignment,)
        )
        self.news = asyncio.Event()
        self._host = self.run(
            lambda: host.RangeHost(
                configuration, assignment, storage, "simulated", WorkerMetrics(self.registry), self.news
            )
        )
        self._stop = asyncio.Event()
        self._task = self._loop.create_task(self._host.run(self._stop))
        self.settle()

    @property
    def job_count(self) -> int:
        """The jobs that storage threads have begun."""
        return len(self._threads.jobs)

    @property
    def batches(self) -> list[tuple[Operation, list[int]]]:
        """The batches that storage threads have begun: the operation, and the range of each package."""
        return [
            (arguments[2], [range_number for range_number, _ in arguments[3]])
            for _, _, arguments in self._threads.jobs
            if arguments
        ]

    def report(self) -> ChildReport:
        """Returns what the process reports, when its gauges are set."""
        return self.run(self._host.report)

    def run(self, act: Callable[[], T]) -> T:
        """Returns what a function returns that is called on the loop, when everything that follows has happened."""

        async def on_loop() -> T:
            return act()

        result = self._loop.run_until_complete(on_loop())
        self.settle()
        return result

    def settle(self) -> None:
        """Lets everything happen that waits for nothing else."""

        async def turn() -> None:
            await asyncio.sleep(0)
            while not self._loop.is_quiet:  # noqa: ASYNC110 - nothing says when the loop has no more to do
                await asyncio.sleep(0)

        self._loop.run_until_complete(turn())

    def finish_job(self, number: int = 0) -> None:
        """Has a storage thread do one of the jobs, if there is one."""
        if self.job_count:
            self._threads.finish(number % self.job_count)
            self.settle()

    def pass_time(self, seconds: float) -> None:
        """Lets time pass."""
        self._loop.now_s += seconds
        self.settle()

    def check_alive(self) -> None:
        """Fails if the process has ended, or if an error was not caught."""
        assert not self._task.done(), f"the process ended: {self._task}"
        assert not self.loop_errors, self.loop_errors

    def stop(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Stops it as SIGTERM does, when `meanwhile` happens; what storage threads have begun must be finished."""

        def stop() -> None:
            self._stop.set()
            meanwhile()

        self.run(stop)

    def end(self) -> None:
        """Ends it in whatever state it is."""
        self._task.cancel()
        for future, _, _ in self._threads.jobs:
            future.cancel()
        self.settle()
        self._loop.run_until_complete(asyncio.gather(self._task, return_exceptions=True))
        self._loop.close()
        for seam in self._seams:
            seam.stop()

    def has_ended(self) -> bool:
        """Whether it has returned."""
        return self._task.done() and self._task.exception() is None

    @property
    def failure(self) -> BaseException | None:
        """What it has ended with; None if it has not ended, or ended well."""
        return self._task.exception() if self._task.done() else None


def many_timeouts() -> Any:
    """Patches the number of timeouts after which a package is refused: it is tried without end."""
    return mock.patch.object(batch_scheduler, "_TIMEOUTS_MAX_COUNT", 1_000_000)
