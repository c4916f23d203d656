"""The rows that writes leave in empty tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, TypeAlias

from bench.writes.loads import Write
from provgate_storage import EntityType, RelationType, RevisionData
from provgate_storage.rows.rows import LOCATION

Row: TypeAlias = tuple[Any, ...]
Rows: TypeAlias = set[Row]


class WrongRowsError(RuntimeError):
    """The stored rows after a run differ from the written ones."""


def expected_rows(writes: Iterable[Write]) -> dict[str, Rows]:
    """Returns the rows of each table after the calls: the earliest date of each entity, and all of each set."""
    dates: dict[str, dict[bytes, datetime | None]] = {EntityType.CONTENT: {}, EntityType.DIRECTORY: {}}
    revisions: dict[bytes, RevisionData] = {}
    rows: dict[str, Rows] = {}
    for write in writes:
        if write.table in dates:
            _merge_dates(dates[write.table], write.data)
        elif write.table == EntityType.REVISION:
            _merge_revisions(revisions, write.data)
        else:
            rows.setdefault(write.table, set()).update(_rows(write))
    rows |= {table: set(known.items()) for table, known in dates.items()}
    rows[EntityType.REVISION] = {(id, known.date, known.origin) for id, known in revisions.items()}
    return rows


def _merge_dates(known: dict[bytes, datetime | None], more: Mapping[bytes, datetime | None]) -> None:
    for id, date in more.items():
        known[id] = _earlier(known.get(id), date)


def _merge_revisions(known: dict[bytes, RevisionData], more: Mapping[bytes, RevisionData]) -> None:
    for id, new in more.items():
        old = known.get(id, RevisionData(None, None))
        known[id] = RevisionData(_earlier(old.date, new.date), new.origin or old.origin)


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return min((date for date in (one, other) if date is not None), default=None)


def _rows(write: Write) -> Iterator[Row]:
    if write.table == LOCATION:
        return ((path,) for path in write.data)
    if write.table == EntityType.ORIGIN:
        return iter(write.data.items())
    pairs = ((src, row) for src, rows in write.data.items() for row in rows)
    if RelationType(write.table).has_path:
        return ((src, row.dst, row.path) for src, row in pairs)
    return ((src, row.dst) for src, row in pairs)
