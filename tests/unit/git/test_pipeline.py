"""The order of stages, and what a failure stops."""

from __future__ import annotations

import random
import threading
import time

import pytest

from provgate_client.git.pipeline import Pipeline


class Recorder:
    """Stages that note when they begin and end, and may fail."""

    def __init__(self, failing: tuple[int, int] | None = None) -> None:
        self.events: list[tuple[int, int, str]] = []
        self._failing = failing
        self._lock = threading.Lock()

    def stage(self, n: int, batch: int) -> None:
        self._note(n, batch, "begin")
        time.sleep(random.Random(f"{n} {batch}").random() / 1000)
        if (n, batch) == self._failing:
            raise ValueError("stage")
        self._note(n, batch, "end")

    def _note(self, n: int, batch: int, what: str) -> None:
        with self._lock:
            self.events.append((n, batch, what))


def pipeline_of(recorder: Recorder, in_flight_max: int = 4) -> Pipeline[int]:
    stages = [lambda batch, n=n: recorder.stage(n, batch) for n in range(3)]
    return Pipeline(stages, in_flight_max)


def test_a_stage_of_a_batch_begins_after_the_stage_before_of_this_and_all_earlier_ones() -> None:
    recorder = Recorder()
    with pipeline_of(recorder) as pipeline:
        for batch in range(10):
            pipeline.submit(batch)
        pipeline.drain()
        assert len(recorder.events) == 60
    when = {event: position for position, event in enumerate(recorder.events)}
    for n in range(1, 3):
        for batch in range(10):
            for earlier in range(batch + 1):
                assert when[(n - 1, earlier, "end")] < when[(n, batch, "begin")]


def test_several_batches_are_in_flight() -> None:
    both = threading.Barrier(2, timeout=10)
    with Pipeline[int]([lambda batch: None, lambda batch: meet(both)], 2) as pipeline:
        # Both are in their second stage at once.
        pipeline.submit(0)
        pipeline.submit(1)
        pipeline.drain()


def meet(barrier: threading.Barrier) -> None:
    barrier.wait()


def test_no_more_batches_are_in_flight_than_allowed() -> None:
    recorder = Recorder()
    with pipeline_of(recorder, in_flight_max=1) as pipeline:
        pipeline.submit(0)
        pipeline.submit(1)
        assert (2, 0, "end") in recorder.events
        pipeline.drain()


@pytest.mark.parametrize("failing", [(0, 1), (1, 1), (2, 1)])
def test_a_failure_keeps_its_batch_and_all_later_ones_out_of_the_next_stage(failing: tuple[int, int]) -> None:
    recorder = Recorder(failing)
    with pytest.raises(ValueError, match="stage"):
        run(pipeline_of(recorder), 4)
    n, batch = failing
    assert (n, batch, "begin") in recorder.events
    assert [event for event in recorder.events if event[0] > n and event[1] >= batch] == []
    assert (2, 0, "end") in recorder.events


def run(pipeline: Pipeline[int], batch_count: int) -> None:
    with pipeline:
        for batch in range(batch_count):
            pipeline.submit(batch)
        pipeline.drain()


def test_leaving_by_an_exception_starts_nothing_more_and_waits() -> None:
    begun, go = threading.Event(), threading.Event()
    ended: list[int] = []

    def stage(batch: int) -> None:
        begun.set()
        go.wait(10)
        ended.append(batch)

    def interrupted() -> None:
        with Pipeline[int]([stage, stage], 1) as pipeline:
            pipeline.submit(0)
            begun.wait(10)
            threading.Timer(0.05, go.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert ended == [0]
