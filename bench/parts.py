"""The parts of a benchmark, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from bench.growth import measure_growth
from bench.history import mixed, record, repository
from bench.idle import measure_idle
from bench.indexing import measure_indexing
from bench.latencies import measure_reads, measure_single_writes
from bench.memory import measure_at_end, measure_million
from bench.rounds import Workload
from bench.session import Session
from bench.sizes import measure_sizes
from bench.stages import measure_stages
from bench.starts import measure_starts
from bench.subjects import DIRECT, GATEWAY, HABITS, LIMIT
from bench.transactions import measure_transactions
from bench.workloads import MONGODB_WRITES, WRITES
from provgate_storage import get_provenance_storage

LARGE_TABLES: Final = "large"

_IN_QUICK: Final = ("contents", "locations", "origins", "revisions", "relations", "clients-4")


@dataclass(frozen=True)
class Part:
    """What can be measured by itself.

    Attributes:
        name: for the command line.
        measure: measures it.
        usual: whether it is measured where nothing else is asked for.
        quick: whether a quick benchmark has it.
    """

    name: str
    measure: Callable[[Session], None]
    usual: bool = True
    quick: bool = True


def _write(workload: Workload, session: Session) -> None:
    session.write(workload)


def _mixed(session: Session) -> None:
    database, file = session.subjects.get(DIRECT).database, session.directory / "history.pickle"
    database.empty()
    with get_provenance_storage(**database.storage_config) as storage:
        entries = record(repository(session.directory), storage, file)
    make = partial(mixed, file)
    session.write(Workload("mixed", "a real history, mixed", make, entries, (GATEWAY, DIRECT, LIMIT, HABITS), rounds=3))


PARTS: Final = (
    # Before processes are there that share pages with those that are looked at.
    Part("memory", measure_million),
    *(Part(workload.name, partial(_write, workload), quick=workload.name in _IN_QUICK) for workload in WRITES),
    Part("mixed", _mixed, quick=False),
    Part("single", measure_single_writes),
    Part("reads", measure_reads),
    Part("indexing", measure_indexing),
    Part(LARGE_TABLES, measure_growth, usual=False),
    Part("memory-at-end", measure_at_end),
    Part("idle", measure_idle, usual=False),
    Part("sizes", measure_sizes, usual=False),
    Part("stages", measure_stages, usual=False),
    Part("transactions", measure_transactions, usual=False),
    Part("start", measure_starts),
)
"""All of them; the last ones change what runs."""


MONGODB_PARTS: Final = tuple(Part(workload.name, partial(_write, workload)) for workload in MONGODB_WRITES)
"""Those of a stack on MongoDB."""


def chosen(only: Sequence[str], quick: bool, large: bool) -> list[Part]:
    """Returns the parts to run, in their order.

    Args:
        only: the names of parts; all usual ones where empty.
        quick: whether those that a quick benchmark leaves out are left out.
        large: whether large tables are measured too.

    Raises:
        ValueError: no part has one of the names.
    """
    names = {part.name for part in PARTS}
    for name in only:
        if name not in names:
            raise ValueError(f"{name}: there is no such part; there are {', '.join(part.name for part in PARTS)}")
    usual = [part.name for part in PARTS if part.usual and (part.quick or not quick)]
    wanted = {*(only or usual), *([LARGE_TABLES] if large else [])}
    return [part for part in PARTS if part.name in wanted]
