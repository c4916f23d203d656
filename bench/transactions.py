"""What the database pays for an entry, by how many rows of how many ranges a transaction has."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

from bench import loads
from bench.cpu import cpu_seconds, spent
from bench.loads import Write
from bench.session import Session
from bench.subjects import DIRECT
from provgate_storage import RelationType
from provgate_storage.arguments import dated_rows, relation_rows
from provgate_storage.configured import local_storage
from provgate_storage.rows import Row

_ENTRIES: Final = 100_000
_ROUNDS: Final = 5

# Ranges that share a transaction, and its rows: 625 of one range are a message of 10,000 cut into sixteen packages.
_SHAPES: Final = ((1, 625), (1, 2_000), (1, 6_250), (8, 2_500), (8, 10_000), (16, 20_000))


def measure_transactions(session: Session) -> None:
    """Measures contents and relations, by the storage alone over one connection."""
    subject = session.subjects.get(DIRECT)
    source = random.Random(1)
    with local_storage(subject.database.storage_config, "bench", write_connections=1) as storage:
        for make in (_contents, _relations):
            for range_count, row_count in _SHAPES:
                database_s = 0.0
                for round_number in range(_ROUNDS + 1):
                    name, rows = make(source)
                    subject.database.empty()
                    subject.database.rest()
                    before = cpu_seconds(session.stack.path)
                    for batch in _batches(rows, range_count, row_count):
                        storage.write_rows(name, batch)
                    # The first one warms up.
                    if round_number:
                        database_s += spent(before, cpu_seconds(session.stack.path))["database"]
                title = f"{name}, transactions of {row_count:,} rows of {range_count} of 16 ranges"
                session.results.transactions[title] = database_s / _ROUNDS / _ENTRIES * 1_000_000


def _contents(source: random.Random) -> tuple[str, list[Row]]:
    write: Write = loads.contents(source, _ENTRIES)
    return write.table, dated_rows(write.data)


def _relations(source: random.Random) -> tuple[str, list[Row]]:
    relation = RelationType.CNT_EARLY_IN_REV
    write: Write = loads.relations(relation, source, _ENTRIES)
    return write.table, relation_rows(relation, write.data)


def _batches(rows: list[Row], range_count: int, row_count: int) -> Iterator[list[Row]]:
    groups: list[list[Row]] = [[] for _ in range(16 // range_count)]
    for row in rows:
        groups[row[0][0] * len(groups) // 256].append(row)
    for group in groups:
        for start in range(0, len(group), row_count):
            yield group[start : start + row_count]
