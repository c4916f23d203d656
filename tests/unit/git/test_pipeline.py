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


def test_a_stage_of_a_batch_begins_after_its_earlier_stages_and_those_of_earlier_batches() -> None:
    recorder = Recorder()
    with pipeline_of(recorder) as pipeline:
        for batch in range(10):
            pipeline.submit(batch)
        pipeline.drain()
        assert len(recorder.events) == 60
    when = {event: position for position, event in enumerate(recorder.events)}
    for n in range(3):
        for batch in range(10):
            for earlier_n, earlier_batch in ((n - 1, batch), (n, batch - 1)):
                if earlier_n >= 0 and earlier_batch >= 0:
                    assert when[(earlier_n, earlier_batch, "end")] < when[(n, batch, "begin")]


def test_several_batches_are_in_flight() -> None:
    both = threading.Barrier(2, timeout=10)
    with Pipeline[int]([lambda batch: None, lambda batch: meet(both, batch == 0), lambda batch: None], 2) as pipeline:
        pipeline.submit(0)
        pipeline.submit(1)
        # The second batch is past its first stage while the first is still in its second.
        meet(both, True)
        pipeline.drain()


def meet(barrier: threading.Barrier, here: bool) -> None:
    if here:
        barrier.wait()


def test_no_more_batches_are_in_flight_than_allowed() -> None:
    recorder = Recorder()
    with pipeline_of(recorder, in_flight_max=1) as pipeline:
        pipeline.submit(0)
        pipeline.submit(1)
        assert (2, 0, "end") in recorder.events
        pipeline.drain()


@pytest.mark.parametrize("failing", [(0, 1), (1, 1), (2, 1)])
def test_a_failure_stops_its_batch_and_all_later_ones_at_its_stage(failing: tuple[int, int]) -> None:
    recorder = Recorder(failing)
    with pytest.raises(ValueError, match="stage"):
        run(pipeline_of(recorder), 4)
    n, batch = failing
    late = [event for event in recorder.events if event[0] >= n and event[1] >= batch]
    assert late == [(n, batch, "begin")]
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
        with Pipeline[int]([stage], 4) as pipeline:
            for batch in range(3):
                pipeline.submit(batch)
            begun.wait(10)
            threading.Timer(0.05, go.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert ended == [0]
