"""What runs come to: medians, ratios, CPU seconds a million entries."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.rounds import Run


@dataclass(frozen=True)
class Figures:
    """A workload's runs of one subject.

    Attributes:
        rate: entries a second, the median of the rounds.
        cpu_s_per_million: CPU seconds for a million entries by role, over all rounds.
    """

    rate: float
    cpu_s_per_million: Mapping[str, float]

    @property
    def total_cpu(self) -> float:
        """CPU seconds for a million entries, of all roles."""
        return sum(self.cpu_s_per_million.values())


def figures(runs: Sequence[Run]) -> Figures:
    """Returns the figures of one subject's runs."""
    entries = sum(run.entries for run in runs)
    roles = {role for run in runs for role in run.cpu_s}
    cpu = {role: sum(run.cpu_s.get(role, 0.0) for run in runs) * 1_000_000 / entries for role in roles}
    return Figures(statistics.median(run.entries / run.seconds for run in runs), cpu)


def ratio(runs: Sequence[Run], subject: str, other: str) -> float:
    """Returns the rate of a subject by that of another: the median of the ratios within each round."""
    seconds = {(run.subject, run.round): run.seconds for run in runs}
    rounds = {run.round for run in runs}
    return statistics.median(seconds[other, number] / seconds[subject, number] for number in rounds)
