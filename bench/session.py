"""One benchmark: a running stack, the subjects, and the results so far."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from bench.measure.rounds import Workload, measure
from bench.report.results import Results, Written
from bench.subjects import Subjects
from provgate_stack.stack import Stack

_ROUNDS = 5
_QUICK_SHARE = 0.6


@dataclass(frozen=True)
class Sizes:
    """The amount of measuring.

    Attributes:
        quick: whether there are fewer rounds.
        rounds: the rounds of each write; None for the workload's own number.
        entries: the entries of each write; None for the workload's own number.
    """

    quick: bool = False
    rounds: int | None = None
    entries: int | None = None

    def count(self, usual: int) -> int:
        """Returns the number of repetitions for a usual number."""
        return max(1, round(usual * _QUICK_SHARE)) if self.quick else usual


@dataclass(frozen=True)
class Session:
    """The arguments of every part.

    Attributes:
        stack: the running stack.
        subjects: the subjects.
        results: the results, to which a part adds.
        directory: a directory for files.
        sizes: the amount of measuring.
    """

    stack: Stack
    subjects: Subjects
    results: Results
    directory: Path
    sizes: Sizes

    def write(self, workload: Workload) -> None:
        """Measures a workload."""
        workload = replace(workload, entries=self.sizes.entries or workload.entries)
        rounds = self.sizes.rounds or self.sizes.count(workload.rounds or _ROUNDS)
        subjects = [self.subjects.get(name) for name in workload.subjects]
        runs = measure(workload, subjects, self.stack.path, rounds)
        self.results.written.append(Written(workload.name, workload.title, runs))
