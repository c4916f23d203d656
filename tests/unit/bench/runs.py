"""Runs with figures that are easy to reckon with."""

from __future__ import annotations

from bench.measure.rounds import Run
from bench.report.results import Results, Written


def run(subject: str, number: int, seconds: float, entries: int = 1_000, **cpu_s: float) -> Run:
    return Run(subject, number, entries, seconds, cpu_s)


def written(name: str, *runs: Run) -> Written:
    return Written(name, f"title of {name}", list(runs))


def results_of(*every: Written) -> Results:
    return Results(written=list(every))
