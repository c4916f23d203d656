from __future__ import annotations

import pytest

from bench.report.results import cpu_s_per_million, percentile, rate, ratio, total_cpu_s_per_million
from tests.unit.bench.runs import run


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
