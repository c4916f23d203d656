"""Writes batches, several at once, in the order that makes every date true at any moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ThreadPoolExecutor, wait
from functools import partial
from types import TracebackType
from typing import Self, TypeAlias

from provgate_client.git.batch import Batch, pieces, pieces_of_rows
from provgate_client.git.calls import StorageCalls
from provgate_client.git.progress import ProgressMeter
from provgate_client.git.settings import IndexSettings
from provgate_storage.interface import ProvenanceStorageInterface

_Write: TypeAlias = tuple[str, int, Callable[[], bool]]


class BatchWriter:
    """Writes batches. Each batch goes through four stages.

    1. rows. A row is a fact, true whatever follows.
    2. dates of contents. A date says that the row in the revision of this date is stored.
    3. dates of directories. A date says that all rows of the directory's contents are stored, and that their dates are
       stored and not later.
    4. revisions. A date says that everything of this revision is stored. It may depend on directories of earlier
       revisions.

    Several batches are written at once, each by a thread. A batch enters a stage when it and all batches before it have
    passed the stage before. So a stage is written after all earlier stages of this batch and of all batches before it;
    within a stage, batches do not wait for each other. If a stage fails, neither this batch nor a later one enters the
    next stage. An indexer that dies leaves true rows and true dates, and the next run adds what is missing: at most
    the batches that were in flight.

    A context manager, for one thread. On exit it waits until running stages have ended. After an exception no other
    stage begins.
    """

    def __init__(
        self, storage: ProvenanceStorageInterface, calls: StorageCalls, meter: ProgressMeter, settings: IndexSettings
    ) -> None:
        self._storage = storage
        self._calls = calls
        self._meter = meter
        self._call_entries = settings.call_entries
        self._in_flight_max = settings.batches_in_flight
        self._stages = (self._write_rows, self._write_contents, self._write_directories, self._write_revisions)
        self._batches = ThreadPoolExecutor(settings.batches_in_flight, thread_name_prefix="batch")
        self._writers = ThreadPoolExecutor(settings.writers, thread_name_prefix="writer")
        self._in_flight: deque[Future[None]] = deque()
        # For each stage, whether the last batch and all before it have passed it.
        self._passed: list[Future[None]] = []
        self._is_stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is not None:
            self._is_stopped = True
            self._calls.stop()
        self._batches.shutdown(wait=True, cancel_futures=self._is_stopped)
        self._writers.shutdown()

    def submit(self, batch: Batch) -> None:
        """Starts to write a batch; waits while too many are in flight. Raises the exception of an earlier batch."""
        self._wait(self._in_flight_max - 1)
        before, self._passed = self._passed, [Future() for _ in self._stages]
        self._in_flight.append(self._batches.submit(self._run, batch, before, self._passed))

    def drain(self) -> None:
        """Waits until everything submitted is acked. Raises the exception of a batch."""
        self._wait(0)

    def _wait(self, count_max: int) -> None:
        while len(self._in_flight) > count_max:
            self._in_flight.popleft().result()

    def _run(self, batch: Batch, before: Sequence[Future[None]], passed: Sequence[Future[None]]) -> None:
        try:
            for n, stage in enumerate(self._stages):
                if self._is_stopped:
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

    def _write_rows(self, batch: Batch) -> None:
        self._write_all(
            (relation.value, count, partial(self._storage.relation_add, relation, piece))
            for relation, rows in batch.rows.items()
            for piece, count in pieces_of_rows(rows, self._call_entries)
        )

    def _write_contents(self, batch: Batch) -> None:
        self._write_all(
            ("content", len(piece), partial(self._storage.content_add, dict(piece)))
            for piece in pieces(batch.content_dates.items(), self._call_entries)
        )

    def _write_directories(self, batch: Batch) -> None:
        self._write_all(
            ("directory", len(piece), partial(self._storage.directory_add, dict(piece)))
            for piece in pieces(batch.directory_dates.items(), self._call_entries)
        )

    def _write_revisions(self, batch: Batch) -> None:
        self._write_all(
            ("revision", len(piece), partial(self._storage.revision_add, dict(piece)))
            for piece in pieces(batch.revisions.items(), self._call_entries)
        )
        self._meter.add(done=batch.finished_count)

    def _write_all(self, writes: Iterable[_Write]) -> None:
        """Makes several writes at once. Returns when all are acked, or raises as soon as one fails."""
        futures = [self._writers.submit(self._calls.write, *write) for write in writes]
        ended, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in ended:
            future.result()
