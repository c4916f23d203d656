"""Rate and cost of writes, from the adapter to the committed row and back."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.cpu import cpu_seconds, spent
from provgate_storage import ProvenanceStorageInterface, RelationData, RelationType

Write = Callable[[ProvenanceStorageInterface, int], bool]

_FIRST_DATE = datetime(2005, 4, 7, tzinfo=UTC)


@dataclass(frozen=True)
class WriteFigures:
    """What writes of one kind cost.

    Attributes:
        rate: entries a second, the median of the runs.
        seconds_per_million: CPU seconds for a million entries, by role, over all runs.
    """

    rate: float
    seconds_per_million: dict[str, float]


def contents(storage: ProvenanceStorageInterface, count: int) -> bool:
    """Adds new contents with dates."""
    return storage.content_add({os.urandom(20): _FIRST_DATE + timedelta(seconds=n) for n in range(count)})


def relations(storage: ProvenanceStorageInterface, count: int) -> bool:
    """Adds new rows of CNT_EARLY_IN_REV, a hundred files to a revision."""
    rows: dict[bytes, set[RelationData]] = {}
    revision = b""
    for n in range(count):
        if n % 100 == 0:
            revision = os.urandom(20)
        rows[os.urandom(20)] = {RelationData(revision, b"src/module_%d/file_%d.c" % (n % 7, n % 100))}
    return storage.relation_add(RelationType.CNT_EARLY_IN_REV, rows)


def measure(storage: ProvenanceStorageInterface, write: Write, count: int, runs: int, stack_path: Path) -> WriteFigures:
    """Writes `count` entries `runs` times, after one run that is not counted."""
    _run(storage, write, count)
    before = cpu_seconds(stack_path)
    rates = [_run(storage, write, count) for _ in range(runs)]
    cost = spent(before, cpu_seconds(stack_path))
    million = 1_000_000 / (count * runs)
    return WriteFigures(statistics.median(rates), {role: seconds * million for role, seconds in cost.items()})


def latencies_s(storage: ProvenanceStorageInterface, count: int) -> list[float]:
    """Returns how long writes of one entry each took, from the call to its return, sorted."""
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        storage.content_add({os.urandom(20): _FIRST_DATE})
        taken.append(time.perf_counter() - started)
    return sorted(taken)


def _run(storage: ProvenanceStorageInterface, write: Write, count: int) -> float:
    started = time.perf_counter()
    if not write(storage, count):
        raise RuntimeError("a write was not acked")
    return count / (time.perf_counter() - started)
