"""Figures, goals, tables, record and picture of results."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.measure.latencies import ONE_ENTRY
from bench.measure.memory import GATEWAY_PEAK
from bench.measure.rounds import Run
from bench.report.goals import Goal, goals
from bench.report.plot import plot
from bench.report.record import recorded
from bench.report.results import (
    Indexing,
    Latency,
    Results,
    Written,
    cpu_s_per_million,
    percentile,
    rate,
    ratio,
    total_cpu_s_per_million,
)
from bench.report.table import goal_row, latency_rows, other_rows, print_results, written_rows
from bench.subjects import DIRECT, GATEWAY, LIMIT
from bench.writes.workloads import CONTENTS, EMPTY, LARGE, MILLION, TEN_THOUSAND


def run(subject: str, number: int, seconds: float, entries: int = 1_000, **cpu_s: float) -> Run:
    return Run(subject, number, entries, seconds, cpu_s)


def written(name: str, *runs: Run) -> Written:
    return Written(name, f"title of {name}", list(runs))


def results_of(*every: Written) -> Results:
    return Results(written=list(every))


def test_a_rate_is_the_median_of_the_rounds() -> None:
    assert rate([run("gateway", 1, 1.0), run("gateway", 2, 0.5), run("gateway", 3, 0.1)]) == 2_000


def test_a_ratio_is_taken_within_each_round() -> None:
    # The machine was ten times slower in the second round: the ratio is the same in all of them.
    runs = [run("gateway", number, slow * 2.0) for number, slow in ((1, 1.0), (2, 10.0), (3, 1.0))]
    runs += [run("limit", number, slow * 1.0) for number, slow in ((1, 1.0), (2, 10.0), (3, 1.0))]
    assert ratio(runs, "gateway", "limit") == pytest.approx(0.5)
    assert ratio(runs, "limit", "gateway") == pytest.approx(2.0)


def test_a_ratio_to_what_was_not_measured_is_none() -> None:
    assert ratio([run("gateway", 1, 1.0)], "gateway", "limit") is None


def test_cpu_time_is_summed_over_rounds_and_told_by_role() -> None:
    runs = [run("gateway", 1, 1.0, client=0.001, database=0.002), run("gateway", 2, 1.0, client=0.003)]
    assert cpu_s_per_million(runs) == pytest.approx(
        {"client": 2.0, "gateway": 0.0, "broker": 0.0, "workers": 0.0, "database": 1.0}
    )
    assert total_cpu_s_per_million(runs) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("percent", "value"),
    [(0, 1.0), (1, 1.0), (50, 50.0), (99, 99.0), (99.5, 100.0), (100, 100.0)],
)
def test_percentiles_are_values_that_were_seen(percent: float, value: float) -> None:
    assert percentile([float(each) for each in range(1, 101)], percent) == value


def test_the_percentile_of_one_value() -> None:
    assert percentile([7.0], 99) == 7.0


def only(results: Results) -> Goal:
    (goal,) = goals(results)
    return goal


def test_there_are_no_goals_without_measurements() -> None:
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


MEASURED = written(
    "contents",
    run("gateway", 1, 0.5, client=0.001, gateway=0.002, broker=0.003, workers=0.004, database=0.005),
    run("direct", 1, 1.0, database=0.002),
    run("limit", 1, 0.25, client=0.001),
)


def test_a_row_of_writes_has_rate_ratios_and_cpu_time() -> None:
    ((title, entries, rate, *others),) = written_rows([MEASURED])
    assert (title, entries, rate) == ("title of contents", "1,000", "2,000")
    assert others[:3] == ["2.00", "0.50", ""]
    assert others[3:8] == ["1.00", "2.00", "3.00", "4.00", "5.00"]
    assert others[8:] == ["15.0", "2.0", "1.0", ""]


def test_two_gateways_have_a_row_of_their_own() -> None:
    rows = [*written_rows([written("two", run("gateway", 1, 0.5), run("two gateways", 1, 0.25))])]
    assert [(row[0], row[2]) for row in rows] == [
        ("title of two", "2,000"),
        ("title of two, two gateways", "4,000"),
    ]


def test_a_row_of_latencies_has_a_cell_for_each_subject() -> None:
    latencies = [Latency("get", "a get", "gateway", [1.0, 2.0, 3.0]), Latency("get", "a get", "direct", [0.5])]
    assert [*latency_rows(Results(latencies=latencies))] == [("a get", "2.00 / 3.00", "0.50 / 0.50", "")]


def test_the_other_rows() -> None:
    results = Results(
        memory_mib={"gateway": 12.34},
        ready_s=[1.0, 3.0, 2.0],
        indexings=[Indexing("pika", 3_324, 175_159, 4.0, {"client": 1.0, "database": 0.5})],
        idle_share={"broker": 0.01},
    )
    assert [*other_rows(results)] == [
        ("memory (PSS): gateway", "12.3 MiB"),
        ("worker program, start to ready", "2.00 s"),
        ("provgate index: pika, 3,324 revisions, 175,159 entries", "4.00 s; CPU 1.50 s"),
        ("at rest: broker", "1.00% of a core"),
    ]
    assert [*other_rows(Results())] == []


def test_a_goal_is_held_or_missed() -> None:
    assert goal_row(Goal("a", "< 1 s", "0.50 s", True)) == ("a", "< 1 s", "0.50 s", "held")
    assert goal_row(Goal("a", "< 1 s", "1.50 s", False)) == ("a", "< 1 s", "1.50 s", "missed")


def test_all_results_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_results(results_of(MEASURED))
    printed = capsys.readouterr().out
    assert "title of contents" in printed
    assert "missed" in printed
    # Nothing is cut off.
    assert "…" not in printed


def test_the_record_has_every_run_and_the_figures() -> None:
    results = results_of(MEASURED)
    results.latencies.append(Latency("get", "a get", "gateway", [1.00049, 2.0]))
    record = recorded(results)
    assert record["written"][0]["runs"][1]["seconds"] == 1.0
    assert record["figures"]["contents"]["direct"] == {
        "entries_per_s": 1_000.0,
        "gateway_rate_by_this": 2.0,
        "cpu_s_per_million": pytest.approx(
            {"client": 0.0, "gateway": 0.0, "broker": 0.0, "workers": 0.0, "database": 2.0}
        ),
    }
    assert record["latencies"][0]["taken_ms"] == [1.0, 2.0]
    assert record["latencies"][0]["p99_ms"] == 2.0
    assert [goal["held"] for goal in record["goals"]] == [False, True]


def test_the_picture_names_workloads_subjects_and_roles(tmp_path: Path) -> None:
    path = tmp_path / "made" / "writes.svg"
    runs = [run("gateway", 1, 0.5, client=0.001, database=0.002), run("limit", 1, 0.25, client=0.001)]
    plot(results_of(written("contents", *runs)), path)
    texts = {element.text for element in ElementTree.parse(path).iter() if element.text and element.text.strip()}
    assert {"title of contents", "1,000", "gateway", "limit", "client", "database"} <= texts
    assert "habits" not in texts
