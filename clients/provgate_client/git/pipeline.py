"""The order in which batches are written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

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
