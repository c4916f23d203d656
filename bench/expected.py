"""The rows that calls leave in empty tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from bench.loads import LOCATION, Write
from provgate_storage import EntityType, RelationType

Row = tuple[Any, ...]


def expected_rows(writes: Iterable[Write]) -> dict[str, set[Row]]:
    """Returns the rows of each table after the calls, of which no two give an entity different values."""
    rows: dict[str, set[Row]] = {}
    for write in writes:
        rows.setdefault(write.table, set()).update(_rows(write))
    return rows


def _rows(write: Write) -> Iterator[Row]:
    if write.table == LOCATION:
        return ((path,) for path in write.data)
    if write.table == EntityType.REVISION:
        return ((id, known.date, known.origin) for id, known in write.data.items())
    if write.table in tuple(RelationType):
        has_path = RelationType(write.table).has_path
        return (
            (src, row.dst, row.path) if has_path else (src, row.dst) for src, rows in write.data.items() for row in rows
        )
    return iter(write.data.items())
