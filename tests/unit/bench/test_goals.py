from __future__ import annotations

import pytest

from bench.measure.latencies import ONE_ENTRY
from bench.measure.memory import GATEWAY_PEAK
from bench.report.goals import Goal, goals
from bench.report.results import Indexing, Latency, Results
from bench.subjects import DIRECT, GATEWAY, LIMIT
from bench.writes.workloads import CONTENTS, EMPTY, LARGE, MILLION, TEN_THOUSAND
from tests.unit.bench.runs import results_of, run, written


def only(results: Results) -> Goal:
    (goal,) = goals(results)
    return goal


def test_nothing_is_said_of_what_was_not_measured() -> None:
    assert goals(Results()) == []
    assert goals(results_of(written(CONTENTS, run(GATEWAY, 1, 1.0)))) == []


@pytest.mark.parametrize(("limit_s", "held"), [(0.65, True), (0.64, False)])
def test_the_share_of_the_limit(limit_s: float, held: bool) -> None:
    goal = only(results_of(written(CONTENTS, run(GATEWAY, 1, 1.0), run(LIMIT, 1, limit_s))))
    assert goal == Goal(f"title of {CONTENTS}, 1,000: rate by limit's", "≥ 0.65", f"{limit_s:.2f}", held)


@pytest.mark.parametrize(("direct_s", "held"), [(1.01, True), (0.99, False)])
def test_over_the_storage_alone(direct_s: float, held: bool) -> None:
    goal = only(results_of(written("revisions", run(GATEWAY, 1, 1.0), run(DIRECT, 1, direct_s))))
    assert (goal.bound, goal.held) == ("≥ 1.00", held)


def test_latencies_are_those_of_the_gateway() -> None:
    taken_ms = [1.0] * 98 + [30.0, 30.0]
    latencies = [Latency(ONE_ENTRY, "one", subject, taken_ms) for subject in (GATEWAY, DIRECT)]
    assert goals(Results(latencies=latencies)) == [
        Goal("one: p50", "< 6 ms", "1.00 ms", True),
        Goal("one: p99", "< 20 ms", "30.00 ms", False),
    ]


@pytest.mark.parametrize(("mib", "held"), [(149.9, True), (150.0, False)])
def test_memory(mib: float, held: bool) -> None:
    goal = only(Results(memory_mib={GATEWAY_PEAK: mib, "something else": 1_000.0}))
    assert (goal.bound, goal.held) == ("< 150 MiB", held)


def test_durations_are_medians() -> None:
    indexings = [Indexing("pika", 3_324, 175_159, seconds, {}) for seconds in (16.0, 14.0, 30.0)]
    ready, index = goals(Results(ready_s=[1.0, 5.0, 1.5], indexings=indexings))
    assert (ready.seen, ready.held) == ("1.50 s", True)
    assert (index.title, index.seen, index.held) == ("indexing pika, 3,324 revisions", "16.00 s", False)


@pytest.mark.parametrize(("cpu_s", "held"), [(0.0159, True), (0.0161, False)])
def test_growth_is_cpu_time_by_that_of_empty_tables(cpu_s: float, held: bool) -> None:
    empty = written(EMPTY[CONTENTS], run(GATEWAY, 1, 1.0, database=0.01))
    large = written(LARGE[CONTENTS], run(GATEWAY, 1, 9.0, database=cpu_s))
    assert only(results_of(empty, large)).held is held


def test_a_million_costs_what_a_hundred_times_ten_thousand_do() -> None:
    small = written(TEN_THOUSAND, run(GATEWAY, 1, 1.0, 10_000, workers=0.1))
    large = written(MILLION, run(GATEWAY, 1, 1.0, 1_000_000, workers=14.0))
    goal = only(results_of(small, large))
    assert (goal.bound, goal.seen, goal.held) == ("< 1.25", "1.40", False)
