"""The order in which batches are written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ThreadPoolExecutor, wait
from functools import partial
from types import TracebackType
from typing import Generic, Self, TypeAlias, TypeVar

from provgate_client.git.batch import Batch, cut, cut_rows
from provgate_client.git.dates import StorageCalls
from provgate_client.git.progress import ProgressMeter
from provgate_client.git.settings import IndexSettings
from provgate_storage.interface import ProvenanceStorageInterface

T = TypeVar("T")


class Pipeline(Generic[T]):
    """Runs every batch through all stages, several batches at once, each in a thread of its own.

    A batch enters a stage when it and every batch before it have passed the stage before: what stage n writes is
    written after all that the stages before n write, of this batch and of earlier ones. Within a stage batches do not
    wait for each other. When a stage raises, neither this batch nor a later one enters the next stage.

    A context manager. It waits on exit until the stages that run have ended; on an exception no other one is entered.
    """

    def __init__(self, stages: Sequence[Callable[[T], None]], in_flight_max: int) -> None:
        self._stages = stages
        self._in_flight_max = in_flight_max
        self._threads = ThreadPoolExecutor(in_flight_max, thread_name_prefix="batch")
        self._in_flight: deque[Future[None]] = deque()
        self._is_left = False
        # Of the batch that was submitted last: when it and all before it have passed each stage.
        self._passed: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_left = exc is not None
        self._threads.shutdown(wait=True, cancel_futures=self._is_left)

    def submit(self, batch: T) -> None:
        """Starts a batch, after waiting while as many as may be are in flight.

        Raises what a stage has raised for an earlier batch.
        """
        self._wait(self._in_flight_max - 1)
        before, self._passed = self._passed, [Future() for _ in self._stages]
        self._in_flight.append(self._threads.submit(self._run, batch, before, self._passed))

    def drain(self) -> None:
        """Waits until every batch has passed every stage. Raises what a stage has raised."""
        self._wait(0)

    def _wait(self, count_max: int) -> None:
        while len(self._in_flight) > count_max:
            self._in_flight.popleft().result()

    def _run(self, batch: T, before: Sequence[Future[None]], passed: Sequence[Future[None]]) -> None:
        try:
            for n, stage in enumerate(self._stages):
                if self._is_left:
                    raise CancelledError
                stage(batch)
                if before:
                    before[n].result()
                passed[n].set_result(None)
        except BaseException as error:
            for future in passed:
                if not future.done():
                    future.set_exception(error)
            raise


_Write: TypeAlias = tuple[str, int, Callable[[], bool]]


class BatchWriter:
    """Writes batches in the order that makes every date a promise that is kept.

    1. rows. A row is a fact, true whatever follows.
    2. dates of contents. One says: the row in the revision of this date is there.
    3. dates of directories. One says: all rows of the directory's contents are there, and their dates, none later.
    4. revisions. A date says: everything of this revision is there. It may rest on directories of earlier revisions.

    So whoever dies in between leaves true rows and kept promises, and what is missing is done when it is run again.
    That is what is in flight: batches are small, and several of them are in one stage.

    A context manager; for one thread.
    """

    def __init__(
        self, storage: ProvenanceStorageInterface, calls: StorageCalls, meter: ProgressMeter, settings: IndexSettings
    ) -> None:
        self._storage = storage
        self._calls = calls
        self._meter = meter
        self._call_entries = settings.call_entries
        self._threads = ThreadPoolExecutor(settings.writers, thread_name_prefix="writer")
        stages = (self._write_rows, self._write_contents, self._write_directories, self._write_revisions)
        self._pipeline: Pipeline[Batch] = Pipeline(stages, settings.batches_in_flight)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is not None:
            self._calls.stop()
        self._pipeline.__exit__(exc_type, exc, traceback)
        self._threads.shutdown()

    def submit(self, batch: Batch) -> None:
        """Starts to write a batch; waits while too many are in flight. Raises what an earlier one has raised."""
        self._pipeline.submit(batch)

    def drain(self) -> None:
        """Waits until everything submitted is acked. Raises what a write has raised."""
        self._pipeline.drain()

    def _write_rows(self, batch: Batch) -> None:
        self._write_all(
            (relation.value, count, partial(self._storage.relation_add, relation, piece))
            for relation, rows in batch.rows.items()
            for piece, count in cut_rows(rows, self._call_entries)
        )

    def _write_contents(self, batch: Batch) -> None:
        self._write_all(
            ("content", len(piece), partial(self._storage.content_add, piece))
            for piece in cut(batch.content_dates, self._call_entries)
        )

    def _write_directories(self, batch: Batch) -> None:
        self._write_all(
            ("directory", len(piece), partial(self._storage.directory_add, piece))
            for piece in cut(batch.directory_dates, self._call_entries)
        )

    def _write_revisions(self, batch: Batch) -> None:
        self._write_all(
            ("revision", len(piece), partial(self._storage.revision_add, piece))
            for piece in cut(batch.revisions, self._call_entries)
        )
        self._meter.done(batch.finished_count)

    def _write_all(self, writes: Iterable[_Write]) -> None:
        """Makes several writes at once, and returns when all are acked, or raises as soon as one is not."""
        futures = [self._threads.submit(self._calls.write, *write) for write in writes]
        ended, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in ended:
            future.result()
