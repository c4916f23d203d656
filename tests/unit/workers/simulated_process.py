"""A process of range workers whose clock, storage threads and storage a test drives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from enum import Enum
from typing import Any, cast
from unittest import mock

from prometheus_client import CollectorRegistry

from provgate_broker.amqp.connection import AmqpParameters
from provgate_broker.settings import RabbitMqSettings
from provgate_broker.topology.policy import Operation, RangePolicy, WriteMethod
from provgate_storage.database.local import LocalStorage
from provgate_storage.errors import DataRefusedError, StorageConflictError, StorageTimeoutError, StorageUnavailableError
from provgate_storage.model import EntityType, Id, Path, RelationData, RelationType, RevisionData
from provgate_workers.consume import host
from provgate_workers.metrics import WorkerMetrics
from provgate_workers.program.assignment import Assignment, all_ranges
from provgate_workers.settings import WorkerConfiguration
from provgate_workers.settle import outbox
from provgate_workers.store import batch
from provgate_workers.store import batch_scheduler as writer
from tests.support.entries import Entry
from tests.support.reference import InMemoryProvenanceStorage
from tests.unit.workers.simulated_broker import SimulatedBroker, SimulatedConsumer, SimulatedPublisher

# How often the loop turns until everything has happened that waits for nothing else.
_TURN_COUNT = 60

REFUSED_ID = b"\xee" * 20
UNEXPECTED_ID = b"\xdd" * 20


class Trouble(Enum):
    """What the storage answers writes with."""

    NONE = "none"
    AWAY = "away"
    CONFLICT = "conflict"
    TIMEOUT = "too slow"
    LOST_COMMIT = "committed, and the connection lost before it said so"


class SimulatedStorage(InMemoryProvenanceStorage):
    """Stores as the reference does, unless it is in trouble; refuses one id, and fails at another in an unknown way."""

    def __init__(self) -> None:
        super().__init__()
        self.trouble = Trouble.NONE

    def probe(self) -> None:
        if self.trouble is Trouble.AWAY:
            raise StorageUnavailableError("away")

    def content_add(self, cnts: Iterable[Id] | Mapping[Id, datetime | None]) -> bool:
        return self._write(cnts, lambda: super(SimulatedStorage, self).content_add(cnts))

    def directory_add(self, dirs: Iterable[Id] | Mapping[Id, datetime | None]) -> bool:
        return self._write(dirs, lambda: super(SimulatedStorage, self).directory_add(dirs))

    def location_add(self, paths: Iterable[Path]) -> bool:
        return self._write(paths, lambda: super(SimulatedStorage, self).location_add(paths))

    def origin_add(self, orgs: Mapping[Id, str]) -> bool:
        return self._write(orgs, lambda: super(SimulatedStorage, self).origin_add(orgs))

    def revision_add(self, revs: Iterable[Id] | Mapping[Id, RevisionData]) -> bool:
        return self._write(revs, lambda: super(SimulatedStorage, self).revision_add(revs))

    def relation_add(self, relation: RelationType, data: Mapping[Id, set[RelationData]]) -> bool:
        return self._write(data, lambda: super(SimulatedStorage, self).relation_add(relation, data))

    def _write(self, keys: Iterable[bytes], store: Callable[[], bool]) -> bool:
        if self.trouble is Trouble.AWAY:
            raise StorageUnavailableError("away")
        if self.trouble is Trouble.CONFLICT:
            raise StorageConflictError("deadlock")
        if self.trouble is Trouble.TIMEOUT:
            raise StorageTimeoutError("too slow")
        if REFUSED_ID in keys:
            raise DataRefusedError("this id")
        if UNEXPECTED_ID in keys:
            raise ZeroDivisionError
        store()
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


class _Threads:
    """Stands for a `ThreadPoolExecutor`: a job is done when the test says so."""

    def __init__(self, _thread_count: int, **_: object) -> None:
        self.jobs: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.jobs.append((future, lambda: function(*arguments)))
        return future

    def finish(self, index: int) -> None:
        future, job = self.jobs.pop(index)
        try:
            future.set_result(job())
        except Exception as error:  # noqa: BLE001 - as an executor does
            future.set_exception(error)


class SimulatedProcess:
    """Hosts all ranges, of which each exchange has one, on a simulated broker.

    Args:
        broker: the broker.
        storage: the storage.

    Attributes:
        loop_errors: what the loop was told of that nobody caught.
    """

    def __init__(self, broker: SimulatedBroker, storage: SimulatedStorage) -> None:
        self.loop_errors: list[object] = []
        self._loop = _Loop()
        self._loop.set_exception_handler(lambda _, context: self.loop_errors.append(context))
        self._threads: list[_Threads] = []
        self._seams = (
            mock.patch.object(batch, "_CONFLICT_WAIT_MAX_S", 0.0),
            mock.patch.object(batch, "_UNEXPECTED_WAIT_MAX_S", 0.0),
            # That a package is given up while others are stored is for other tests.
            mock.patch.object(writer, "_TIMEOUTS_MAX_COUNT", 1_000_000),
            mock.patch.object(writer, "ThreadPoolExecutor", self._new_threads),
            mock.patch.object(outbox, "Publisher", lambda _parameters, _name, told: SimulatedPublisher(broker, told)),
            mock.patch.object(
                host,
                "WorkConsumer",
                lambda _parameters, _name, told, delays_s, prefetch_count: SimulatedConsumer(
                    broker, told, delays_s, prefetch_count
                ),
            ),
        )
        for seam in self._seams:
            seam.start()
        metrics = WorkerMetrics(CollectorRegistry())
        self._host = self.run(
            lambda: host.RangeHost(*_arguments(storage), name="simulated", metrics=metrics, on_ready=lambda: None)
        )
        self._stop = asyncio.Event()
        self._task = self._loop.create_task(self._host.run(self._stop))
        self.settle()

    @property
    def job_count(self) -> int:
        """The jobs that storage threads have begun."""
        return sum(len(threads.jobs) for threads in self._threads)

    def run(self, act: Callable[[], Any]) -> Any:
        """Returns what a function returns that is called on the loop, when everything that follows has happened."""

        async def on_loop() -> Any:
            return act()

        result = self._loop.run_until_complete(on_loop())
        self.settle()
        return result

    def settle(self) -> None:
        """Lets everything happen that waits for nothing else."""

        async def turn() -> None:
            for _ in range(_TURN_COUNT):
                await asyncio.sleep(0)

        self._loop.run_until_complete(turn())

    def finish_job(self, number: int) -> None:
        """Has a storage thread do one of the jobs, where there is one."""
        busy = [threads for threads in self._threads if threads.jobs]
        if busy:
            busy[0].finish(number % len(busy[0].jobs))
            self.settle()

    def pass_time(self, seconds: float) -> None:
        """Lets time pass."""
        self._loop.now_s += seconds
        self.settle()

    def check_alive(self) -> None:
        """Fails where the process has ended, or an error went to nobody."""
        assert not self._task.done(), f"the process ended: {self._task}"
        assert not self.loop_errors, self.loop_errors

    def stop(self) -> None:
        """Stops it as SIGTERM does; what storage threads have begun must be finished."""
        self.run(self._stop.set)

    def end(self) -> None:
        """Ends it in whatever state it is."""
        self._task.cancel()
        for threads in self._threads:
            for future, _ in threads.jobs:
                future.cancel()
        self.settle()
        self._loop.run_until_complete(asyncio.gather(self._task, return_exceptions=True))
        self._loop.close()
        for seam in self._seams:
            seam.stop()

    @property
    def ended(self) -> bool:
        """Whether it has returned."""
        return self._task.done() and self._task.exception() is None

    def _new_threads(self, thread_count: int, **options: object) -> _Threads:
        self._threads.append(_Threads(thread_count, **options))
        return self._threads[-1]


POISON_AFTER = 1


def _arguments(storage: SimulatedStorage) -> tuple[WorkerConfiguration, Assignment, LocalStorage]:
    policy = RangePolicy.of(dict.fromkeys(("content", "directory", "location", "origin", "revision"), 1))
    # Some of the packages do not fit in hand beside each other.
    settings = RabbitMqSettings(max_in_hand_bytes=400, poison_after=POISON_AFTER, storage_threads=2)
    assignment = Assignment(tuple(all_ranges(policy)), ())
    configuration = WorkerConfiguration(settings, AmqpParameters("amqp://localhost", 10), policy, (assignment,))
    return configuration, assignment, cast("LocalStorage", storage)
