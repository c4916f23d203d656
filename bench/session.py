"""One benchmark: a stack that runs, what it is compared with, and what was seen so far."""

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
    """How much is measured.

    Attributes:
        quick: whether few rounds do.
        rounds: of each write, in place of the workload's own number.
        entries: of each write, in place of the workload's own number.
    """

    quick: bool = False
    rounds: int | None = None
    entries: int | None = None

    def count(self, usual: int) -> int:
        """Returns how often something is measured that is usually measured so often."""
        return max(1, round(usual * _QUICK_SHARE)) if self.quick else usual


@dataclass(frozen=True)
class Session:
    """What every part of a benchmark is given.

    Attributes:
        stack: on which it is measured.
        subjects: what is compared.
        results: where what is seen goes.
        directory: for files of the parts.
        sizes: how much is measured.
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
