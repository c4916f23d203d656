"""What a benchmark saw: the same for the tables, the plot and the JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.rounds import Run


@dataclass(frozen=True)
class Written:
    """The counted runs of a workload.

    Attributes:
        name: of the workload.
        title: the same for people, without the number of entries.
        runs: of all subjects.
    """

    name: str
    title: str
    runs: list[Run]

    @property
    def entries(self) -> int:
        """How many entries each run wrote."""
        return self.runs[0].entries

    def of(self, subject: str) -> list[Run]:
        """Returns the runs of a subject."""
        return [run for run in self.runs if run.subject == subject]


@dataclass(frozen=True)
class Latency:
    """How long calls of one kind took, each on its own.

    Attributes:
        name: of the kind.
        title: the same for people.
        subject: what was called.
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
        revisions: that it has.
        entries: rows that are stored afterwards.
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
    """All that was seen; what was not measured is empty.

    Attributes:
        machine: what it was measured on.
        written: writes at full speed.
        latencies: calls one at a time.
        memory_mib: proportional set sizes, by what they are of.
        ready_s: seconds from the start of a worker program until it was ready.
        indexings: runs of the git indexer.
        idle_share: the share of a core that each role takes at rest.
        row_bytes: bytes that a row takes on disk, indexes included, by table.
        stages: CPU seconds per million entries of each stage of our own code, by what is written.
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
        """Returns what was seen of a workload, or None."""
        return next((written for written in self.written if written.name == workload), None)
