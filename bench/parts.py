"""The parts of a benchmark, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from bench.measure.latencies import measure_reads, measure_single_writes
from bench.measure.memory import measure_at_end, measure_million
from bench.measure.rounds import Workload
from bench.measure.stack import measure_idle, measure_indexing, measure_sizes, measure_starts
from bench.measure.stages import measure_stages
from bench.measure.transactions import measure_transactions
from bench.session import Session
from bench.subjects import DIRECT, GATEWAY, HABITS, LIMIT
from bench.writes.history import mixed, record, repository
from bench.writes.workloads import EMPTY, LARGE, MONGODB_WRITES, WRITES
from provgate_storage import get_provenance_storage

LARGE_TABLES: Final = "large"

_LARGE_ROWS: Final = 2_000_000
_IN_QUICK: Final = ("contents", "locations", "origins", "revisions", "relations", "clients-4")


@dataclass(frozen=True)
class Part:
    """A part that can run alone.

    Attributes:
        name: its name on the command line.
        measure: the function that measures it.
        usual: whether it runs if no part is named.
        quick: whether a quick benchmark includes it.
    """

    name: str
    measure: Callable[[Session], None]
    usual: bool = True
    quick: bool = True


def _measure_mixed(session: Session) -> None:
    """Replays the writes of a real history in random order."""
    database, file = session.subjects.get(DIRECT).database, session.directory / "history.pickle"
    database.empty()
    with get_provenance_storage(**database.storage_config) as storage:
        entries = record(repository(session.directory), storage, file)
    make = partial(mixed, file)
    session.write(Workload("mixed", "a real history, mixed", make, entries, (GATEWAY, DIRECT, LIMIT, HABITS), rounds=3))


def _measure_large_tables(session: Session) -> None:
    """Adds to empty tables, and to growing tables of 2,000,000 rows."""
    subjects = (GATEWAY, DIRECT, LIMIT)
    workloads = [replace(workload, subjects=subjects) for workload in WRITES if workload.name in LARGE]
    for workload in workloads:
        session.write(replace(workload, name=EMPTY[workload.name], title=f"{workload.title} to empty tables"))
    for name in subjects:
        database = session.subjects.get(name).database
        database.empty()
        database.fill(_LARGE_ROWS)
        database.gather_statistics()
    for workload in workloads:
        title = f"{workload.title} to {_LARGE_ROWS:,} rows"
        session.write(replace(workload, name=LARGE[workload.name], title=title, grows=True))


def _write_part(workload: Workload) -> Part:
    return Part(workload.name, partial(Session.write, workload=workload), quick=workload.name in _IN_QUICK)


PARTS: Final = (
    # First, while no other process shares pages with the measured ones.
    Part("memory", measure_million),
    *map(_write_part, WRITES),
    Part("mixed", _measure_mixed, quick=False),
    Part("single", measure_single_writes),
    Part("reads", measure_reads),
    Part("indexing", measure_indexing),
    Part(LARGE_TABLES, _measure_large_tables, usual=False),
    Part("memory-at-end", measure_at_end),
    Part("idle", measure_idle, usual=False),
    Part("sizes", measure_sizes, usual=False),
    Part("stages", measure_stages, usual=False),
    Part("transactions", measure_transactions, usual=False),
    Part("start", measure_starts),
)
"""All parts; the last ones change the running programs."""

MONGODB_PARTS: Final = tuple(map(_write_part, MONGODB_WRITES))
"""The parts of a stack on MongoDB."""


def chosen(only: Sequence[str], quick: bool, large: bool) -> list[Part]:
    """Returns the parts to run, in their order.

    Args:
        only: the names of parts; all usual ones if empty.
        quick: whether to leave out the parts that a quick benchmark leaves out.
        large: whether to measure large tables too.

    Raises:
        ValueError: no part has one of the names.
    """
    names = [part.name for part in PARTS]
    for name in only:
        if name not in names:
            raise ValueError(f"{name}: there is no such part; there are {', '.join(names)}")
    usual = [part.name for part in PARTS if part.usual and (part.quick or not quick)]
    wanted = {*(only or usual), *([LARGE_TABLES] if large else [])}
    return [part for part in PARTS if part.name in wanted]
