"""CPU time of the database per entry, by the number of rows and ranges of a transaction."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import product
from typing import Final

from bench.measure.cpu import cpu_seconds, spent
from bench.session import Session
from bench.subjects import DIRECT, Subject
from bench.writes import loads
from provgate_storage import EntityType, RelationType
from provgate_storage.database.local import LocalStorage
from provgate_storage.registry import local_storage
from provgate_storage.rows.rows import Row, dated_rows, relation_rows

_RELATION: Final = RelationType.CNT_EARLY_IN_REV
_ENTRIES: Final = 100_000
_ROUNDS: Final = 5

# Ranges that share a transaction, and its rows: 625 of one range are a message of 10,000 cut into sixteen packages.
_SHAPES: Final = ((1, 625), (1, 2_000), (1, 6_250), (8, 2_500), (8, 10_000), (16, 20_000))


def measure_transactions(session: Session) -> None:
    """Measures contents and relations, written by the local storage over one connection."""
    subject, source = session.subjects.get(DIRECT), random.Random(1)
    kinds: tuple[tuple[str, Callable[[], list[Row]]], ...] = (
        (EntityType.CONTENT, lambda: dated_rows(loads.contents(source, _ENTRIES).data)),
        (_RELATION, lambda: relation_rows(_RELATION, loads.relations(_RELATION, source, _ENTRIES).data)),
    )
    with local_storage(subject.database.storage_config, "bench", write_connections=1) as storage:
        for (name, make), shape in product(kinds, _SHAPES):
            # The first one warms up.
            _, *counted = [
                _database_s(session, subject, storage, name, _batches(make(), *shape)) for _ in range(_ROUNDS + 1)
            ]
            title = f"{name}, transactions of {shape[1]:,} rows of {shape[0]} of 16 ranges"
            session.results.transactions[title] = sum(counted) / _ROUNDS / _ENTRIES * 1_000_000


def _database_s(
    session: Session, subject: Subject, storage: LocalStorage, name: str, batches: list[list[Row]]
) -> float:
    """Returns the CPU seconds of the database for batches into an empty table."""
    subject.database.empty()
    subject.database.rest()
    before = cpu_seconds(session.stack.path)
    for batch in batches:
        storage.write_rows(name, batch)
    return spent(before, cpu_seconds(session.stack.path))["database"]


def _batches(rows: list[Row], range_count: int, row_count: int) -> list[list[Row]]:
    """Returns batches of `row_count` rows of `range_count` neighbouring ranges of sixteen."""
    groups: list[list[Row]] = [[] for _ in range(16 // range_count)]
    for row in rows:
        groups[row[0][0] * len(groups) // 256].append(row)
    return [group[start : start + row_count] for group in groups for start in range(0, len(group), row_count)]
