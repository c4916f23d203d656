"""What runs come to: medians, ratios within rounds, CPU seconds a million entries, percentiles."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from bench.cpu import ROLES
from bench.rounds import Run

_MILLION = 1_000_000


def rate(runs: Sequence[Run]) -> float:
    """Returns entries a second, the median of the rounds of one subject."""
    return statistics.median(run.entries / run.seconds for run in runs)


def ratio(runs: Sequence[Run], subject: str, other: str) -> float | None:
    """Returns the rate of a subject by that of another: the median of the ratios within each round.

    None where they were not both measured.
    """
    seconds = {(run.subject, run.round): run.seconds for run in runs}
    both = [number for name, number in seconds if name == subject and (other, number) in seconds]
    if not both:
        return None
    return statistics.median(seconds[other, number] / seconds[subject, number] for number in both)


def cpu_s_per_million(runs: Sequence[Run]) -> dict[str, float]:
    """Returns the CPU seconds for a million entries by role, over all rounds of one subject."""
    entries = sum(run.entries for run in runs)
    return {role: sum(run.cpu_s.get(role, 0.0) for run in runs) * _MILLION / entries for role in ROLES}


def total_cpu_s_per_million(runs: Sequence[Run]) -> float:
    """Returns the CPU seconds for a million entries of all roles together, over all rounds of one subject."""
    return sum(cpu_s_per_million(runs).values())


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Returns the smallest of the sorted values that `percent` of them do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
