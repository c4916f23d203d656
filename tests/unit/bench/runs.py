"""Runs with figures that are easy to reckon with."""

from __future__ import annotations

from bench.results import Results, Written
from bench.rounds import Run


def run(subject: str, number: int, seconds: float, entries: int = 1_000, **cpu_s: float) -> Run:
    return Run(subject, number, entries, seconds, cpu_s)


def written(name: str, *runs: Run) -> Written:
    return Written(name, f"title of {name}", list(runs))


def results_of(*every: Written) -> Results:
    return Results(written=list(every))
