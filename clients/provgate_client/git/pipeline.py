"""The order in which batches are written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Pipeline(Generic[T]):
    """Runs every batch through all stages, several batches at once, each stage with a thread of its own.

    A batch enters a stage when it has passed the stage before, and when every batch before it has passed this stage:
    whatever stage n writes is written after all that stages up to n have written of earlier batches, and the stages
    before n of this one. When a stage raises, neither this batch nor a later one goes beyond it.

    A context manager. It waits on exit until the stages that run have ended; on an exception nothing else is started.
    """

    def __init__(self, stages: Sequence[Callable[[T], None]], in_flight_max: int) -> None:
        self._stages = [
            (stage, ThreadPoolExecutor(1, thread_name_prefix=f"stage-{n}")) for n, stage in enumerate(stages)
        ]
        self._last: list[Future[None] | None] = [None] * len(stages)
        self._in_flight: deque[Future[None]] = deque()
        self._in_flight_max = in_flight_max

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for _, executor in self._stages:
            executor.shutdown(wait=False, cancel_futures=exc is not None)
        for _, executor in self._stages:
            executor.shutdown(wait=True)

    def submit(self, batch: T) -> None:
        """Starts a batch, after waiting while as many as may be are in flight.

        Raises what a stage has raised for an earlier batch.
        """
        self._wait(self._in_flight_max - 1)
        before: Future[None] | None = None
        for n, (stage, executor) in enumerate(self._stages):
            before = executor.submit(_run_after, (before, self._last[n]), stage, batch)
            self._last[n] = before
        if before is not None:
            self._in_flight.append(before)

    def drain(self) -> None:
        """Waits until every batch has passed every stage. Raises what a stage has raised."""
        self._wait(0)

    def _wait(self, count_max: int) -> None:
        while len(self._in_flight) > count_max:
            self._in_flight.popleft().result()


def _run_after(earlier: tuple[Future[None] | None, ...], stage: Callable[[T], None], batch: T) -> None:
    for future in earlier:
        if future is not None:
            future.result()
    stage(batch)
