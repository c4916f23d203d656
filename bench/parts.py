"""The parts of a benchmark, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from bench.growth import measure_growth
from bench.history import mixed_stream
from bench.idle import measure_idle
from bench.indexing import measure_indexing
from bench.latencies import measure_reads, measure_single_writes
from bench.memory import measure_at_end, measure_million
from bench.rounds import Workload
from bench.session import Session
from bench.starts import measure_starts
from bench.subjects import DIRECT, GATEWAY, HABITS, LIMIT
from bench.workloads import WRITES
from provgate_storage import get_provenance_storage

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
    database = session.subjects.get(DIRECT).database
    database.empty()
    with get_provenance_storage(**database.storage_config) as storage:
        make = mixed_stream(session.directory, storage)
    title = "the calls of a real history's index, cut small, in any order"
    session.write(Workload("mixed", title, make, (GATEWAY, DIRECT, LIMIT, HABITS)))


PARTS: Final = (
    # Before processes are there that share pages with those that are looked at.
    Part("memory", measure_million),
    *(Part(workload.name, partial(_write, workload), quick=workload.name in _IN_QUICK) for workload in WRITES),
    Part("mixed", _mixed, quick=False),
    Part("single", measure_single_writes),
    Part("reads", measure_reads),
    Part("indexing", measure_indexing),
    Part("large", measure_growth, usual=False),
    Part("memory-at-end", measure_at_end),
    Part("idle", measure_idle, usual=False),
    Part("start", measure_starts),
)
"""All of them; the last ones change what runs."""


def chosen(only: Sequence[str], quick: bool, more: Sequence[str]) -> list[Part]:
    """Returns the parts to run, in their order.

    Args:
        only: the names of parts; all usual ones where empty.
        quick: whether those that a quick benchmark leaves out are left out.
        more: names of parts to run too.
    """
    if only:
        return [part for part in PARTS if part.name in (*only, *more)]
    return [part for part in PARTS if (part.usual and (part.quick or not quick)) or part.name in more]
