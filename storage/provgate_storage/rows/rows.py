"""What a storage writes: rows of plain values, and how those of one key are merged.

Rows are what packages carry and databases hold, without an object of the model in between:

| of | row |
|---|---|
| contents, directories | `(id, date or None)` |
| locations | `(path,)` |
| origins | `(id, url)` |
| revisions | `(id, date or None, preferred origin or None)` |
| a relation with paths | `(source, destination, path)` |
| a relation without | `(source, destination)` |

A date is an integer: microseconds since 1970-01-01T00:00:00Z.

Of two dates the earlier stays, None never replaces one, and sets grow: both merge idempotently and in any order. URLs
and preferred origins are registers, whose rule is one of order: the first URL stays, the last origin that is not None
replaces others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, TypeAlias

from provgate_storage.model import EntityType, Id, RelationType

Row: TypeAlias = tuple[Any, ...]

LOCATION: Final = "location"
"""The name of the set of paths, beside the names of entities and relations."""

_key: Final = itemgetter(0)


def merged(name: str, rows: Sequence[Row]) -> list[Row]:
    """Returns what rows leave that are stored one after the other: each key once, sorted by key.

    Args:
        name: of an entity or a relation, or `LOCATION`.
        rows: valid, in any order, of any key any number of times.
    """
    return _MERGES[name](rows)


def _merged_dates(rows: Sequence[Row]) -> list[Row]:
    # Most batches hold every key once: this finds out at a quarter of what merging costs.
    union: dict[Id, int | None] = dict(rows)
    if len(union) < len(rows):
        union.clear()
        for entry_id, date in rows:
            union[entry_id] = _earliest(union.get(entry_id), date)
    return sorted(union.items(), key=_key)


def _merged_revisions(rows: Sequence[Row]) -> list[Row]:
    union: dict[Id, Row] = {}
    for row in rows:
        known = union.setdefault(row[0], row)
        if known is not row:
            _, date, origin = row
            union[row[0]] = (row[0], _earliest(known[1], date), known[2] if origin is None else origin)
    return sorted(union.values(), key=_key)


def _merged_origins(rows: Sequence[Row]) -> list[Row]:
    union: dict[Id, str] = {}
    for entry_id, url in rows:
        union.setdefault(entry_id, url)
    return sorted(union.items(), key=_key)


def _distinct(rows: Iterable[Row]) -> list[Row]:
    return sorted(set(rows))


def _earliest(a: int | None, b: int | None) -> int | None:
    if a is None or (b is not None and b < a):
        return b
    return a


_MERGES: Final[Mapping[str, Callable[[Sequence[Row]], list[Row]]]] = {
    EntityType.CONTENT: _merged_dates,
    EntityType.DIRECTORY: _merged_dates,
    EntityType.REVISION: _merged_revisions,
    EntityType.ORIGIN: _merged_origins,
    LOCATION: _distinct,
    **dict.fromkeys(RelationType, _distinct),
}
