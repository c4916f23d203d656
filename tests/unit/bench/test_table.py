from __future__ import annotations

import pytest

from bench.report.goals import Goal
from bench.report.record import recorded
from bench.report.results import Indexing, Latency, Results
from bench.report.table import goal_row, latency_rows, other_rows, print_results, written_rows
from tests.unit.bench.runs import results_of, run, written

CONTENTS = written(
    "contents",
    run("gateway", 1, 0.5, client=0.001, gateway=0.002, broker=0.003, workers=0.004, database=0.005),
    run("direct", 1, 1.0, database=0.002),
    run("limit", 1, 0.25, client=0.001),
)


def test_a_row_of_writes_has_rate_ratios_and_cpu_time() -> None:
    ((title, entries, rate, *others),) = written_rows([CONTENTS])
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


def test_the_other_rows_are_of_what_was_measured() -> None:
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


def test_all_of_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_results(results_of(CONTENTS))
    printed = capsys.readouterr().out
    assert "title of contents" in printed
    assert "missed" in printed
    # Nothing is cut off.
    assert "…" not in printed


def test_the_record_has_every_run_and_what_they_come_to() -> None:
    results = results_of(CONTENTS)
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
