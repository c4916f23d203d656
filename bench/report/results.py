"""The results of a benchmark, and the figures that tables, goals, picture and JSON show of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.measure.cpu import ROLES
from bench.measure.rounds import Run


@dataclass(frozen=True)
class Written:
    """The counted runs of a workload.

    Attributes:
        name: of the workload.
        title: the name for people, without the number of entries.
        runs: the runs of all subjects.
    """

    name: str
    title: str
    runs: list[Run]

    @property
    def entries(self) -> int:
        """The number of entries of each run."""
        return self.runs[0].entries

    def of(self, subject: str) -> list[Run]:
        """Returns the runs of a subject."""
        return [run for run in self.runs if run.subject == subject]


@dataclass(frozen=True)
class Latency:
    """The durations of single calls of one kind.

    Attributes:
        name: the kind.
        title: the kind, for people.
        subject: the subject.
        taken_ms: milliseconds from each call to its return, sorted.
    """

    name: str
    title: str
    subject: str
    taken_ms: list[float]


@dataclass(frozen=True)
class Indexing:
    """One run of `provgate index`.

    Attributes:
        repository: its name.
        revisions: the number of its revisions.
        entries: the number of stored rows.
        seconds: from the start of the command to its end.
        cpu_s: CPU seconds by role.
    """

    repository: str
    revisions: int
    entries: int
    seconds: float
    cpu_s: Mapping[str, float]


@dataclass
class Results:
    """All results; empty fields were not measured.

    Attributes:
        machine: the machine and the versions.
        written: writes at full speed.
        latencies: calls one at a time.
        memory_mib: proportional set sizes, by process and moment.
        ready_s: seconds from the start of a worker program until it was ready.
        indexings: runs of the git indexer.
        idle_share: the share of a core that each role uses at rest.
        row_bytes: bytes of a row on disk, with its share of the indexes, by table.
        stages: CPU seconds per million entries of each stage of the code, by table.
        transactions: CPU seconds of the database per million entries, by the shape of the transactions.
    """

    machine: dict[str, str] = field(default_factory=dict)
    written: list[Written] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)
    memory_mib: dict[str, float] = field(default_factory=dict)
    ready_s: list[float] = field(default_factory=list)
    indexings: list[Indexing] = field(default_factory=list)
    idle_share: dict[str, float] = field(default_factory=dict)
    row_bytes: dict[str, float] = field(default_factory=dict)
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    transactions: dict[str, float] = field(default_factory=dict)

    def find(self, workload: str) -> Written | None:
        """Returns the runs of a workload, or None."""
        return next((written for written in self.written if written.name == workload), None)


def rate(runs: Sequence[Run]) -> float:
    """Returns entries a second, the median of the rounds of one subject."""
    return statistics.median(run.entries / run.seconds for run in runs)


def ratio(runs: Sequence[Run], subject: str, other: str) -> float | None:
    """Returns the rate of a subject by that of another: the median of the ratios within each round.

    None if they were not both measured.
    """
    seconds = {(run.subject, run.round): run.seconds for run in runs}
    both = [number for name, number in seconds if name == subject and (other, number) in seconds]
    if not both:
        return None
    return statistics.median(seconds[other, number] / seconds[subject, number] for number in both)


def cpu_s_per_million(runs: Sequence[Run]) -> dict[str, float]:
    """Returns the CPU seconds for a million entries by role, over all rounds of one subject."""
    entries = sum(run.entries for run in runs)
    return {role: sum(run.cpu_s.get(role, 0.0) for run in runs) * 1_000_000 / entries for role in ROLES}


def total_cpu_s_per_million(runs: Sequence[Run]) -> float:
    """Returns the CPU seconds for a million entries of all roles together, over all rounds of one subject."""
    return sum(cpu_s_per_million(runs).values())


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Returns the smallest of the sorted values that `percent` of them do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
