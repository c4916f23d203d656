"""What a benchmark saw: the same for the tables, the plot and the JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.rounds import Run


@dataclass(frozen=True)
class Written:
    """The counted runs of a workload."""

    name: str
    title: str
    runs: list[Run]


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
    """

    machine: dict[str, str] = field(default_factory=dict)
    written: list[Written] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)
    memory_mib: dict[str, float] = field(default_factory=dict)
    ready_s: list[float] = field(default_factory=list)
    indexings: list[Indexing] = field(default_factory=list)
    idle_share: dict[str, float] = field(default_factory=dict)

    def runs(self, workload: str, subject: str | None = None) -> list[Run]:
        """Returns the runs of a workload, of one subject unless None."""
        found = [run for written in self.written if written.name == workload for run in written.runs]
        return [run for run in found if subject in (None, run.subject)]

    def save(self, path: Path) -> None:
        """Writes all of it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
