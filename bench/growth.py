"""Tables that are large already: what an entry costs there."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from bench.database import Database
from bench.rounds import Workload
from bench.session import Session
from bench.subjects import DIRECT, GATEWAY, LIMIT
from bench.workloads import CONTENTS, RELATIONS, WRITES

_ROWS: Final = 2_000_000
_SUBJECTS: Final = (GATEWAY, DIRECT, LIMIT)

EMPTY: Final = {CONTENTS: "contents-of-0", RELATIONS: "relations-of-0"}
LARGE: Final = {CONTENTS: "contents-of-2m", RELATIONS: "relations-of-2m"}


def measure_growth(session: Session) -> None:
    """Adds to empty tables, and to tables of 2,000,000 rows, which grow on."""
    for workload in _workloads():
        session.write(replace(workload, name=EMPTY[workload.name], title=f"{workload.title} to empty tables"))
    for name in _SUBJECTS:
        _fill(session.subjects.get(name).database)
    for workload in _workloads():
        title = f"{workload.title} to {_ROWS:,} rows"
        session.write(replace(workload, name=LARGE[workload.name], title=title, grows=True))


def _workloads() -> list[Workload]:
    return [replace(workload, subjects=_SUBJECTS) for workload in WRITES if workload.name in LARGE]


def _fill(database: Database) -> None:
    database.empty()
    database.fill(_ROWS)
    database.gather_statistics()
