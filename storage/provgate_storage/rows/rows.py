"""Rows: the plain values that packages carry and databases hold, made of arguments and merged by key.

| of | row |
|---|---|
| contents, directories | `(id, date or None)` |
| locations | `(path,)` |
| origins | `(id, url)` |
| revisions | `(id, date or None, preferred origin or None)` |
| a relation with paths | `(source, destination, path)` |
| a relation without paths | `(source, destination)` |

A date is an integer: microseconds since 1970-01-01T00:00:00Z.

Of two dates the earlier stays, None never replaces a date, and sets grow: these merge in any order and any number of
times. For URLs and preferred origins the order counts: the first URL stays, the last origin that is not None stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, Final, TypeAlias

from provgate_storage.model import EntityType, Id, Path, RelationData, RelationType, RevisionData
from provgate_storage.rows.values import (
    are_ids,
    are_paths,
    are_urls,
    check_each,
    check_id,
    check_path,
    check_relation_paths,
    check_url,
    microseconds_of,
)

Row: TypeAlias = tuple[Any, ...]

LOCATION: Final = "location"
"""The name of the set of paths, beside the names of entities and relations."""

_key: Final = itemgetter(0)


def checked_ids(ids: Iterable[Id]) -> list[Id]:
    """Returns ids. This and the following functions raise `InvalidValueError` if an argument is invalid."""
    values = list(ids)
    check_each(are_ids, check_id, values)
    return values


def dated_rows(entries: Iterable[Id] | Mapping[Id, datetime | None]) -> list[Row]:
    """Returns the rows of contents or directories."""
    if not isinstance(entries, Mapping):
        return [(entry_id, None) for entry_id in checked_ids(entries)]
    return list(zip(checked_ids(entries), microseconds_of(list(entries.values())), strict=True))


def location_rows(paths: Iterable[Path]) -> list[Row]:
    """Returns the rows of locations."""
    values = list(paths)
    check_each(are_paths, check_path, values)
    return [(path,) for path in values]


def origin_rows(orgs: Mapping[Id, str]) -> list[Row]:
    """Returns the rows of origins."""
    urls = list(orgs.values())
    check_each(are_urls, check_url, urls)
    return list(zip(checked_ids(orgs), urls, strict=True))


def revision_rows(revs: Iterable[Id] | Mapping[Id, RevisionData]) -> list[Row]:
    """Returns the rows of revisions."""
    if not isinstance(revs, Mapping):
        return [(entry_id, None, None) for entry_id in checked_ids(revs)]
    dates = microseconds_of([data.date for data in revs.values()])
    origins = [data.origin for data in revs.values()]
    check_each(are_ids, check_id, [origin for origin in origins if origin is not None])
    return list(zip(checked_ids(revs), dates, origins, strict=True))


def relation_rows(relation: RelationType, data: Mapping[Id, Iterable[RelationData]]) -> list[Row]:
    """Returns the rows of a relation."""
    rows = [(src, row.dst, row.path) for src, of_source in data.items() for row in of_source]
    check_each(are_ids, check_id, list(data))
    check_each(are_ids, check_id, [dst for _, dst, _ in rows])
    check_relation_paths(relation, [path for _, _, path in rows])
    return rows if relation.has_path else [(src, dst) for src, dst, _ in rows]


def merged(name: str, rows: Sequence[Row]) -> list[Row]:
    """Returns each key once, sorted by key, as if the rows had been stored one after the other.

    Args:
        name: of an entity or a relation, or `LOCATION`.
        rows: valid, in any order; a key may occur any number of times.
    """
    match name:
        case EntityType.CONTENT | EntityType.DIRECTORY:
            return _merged_dates(rows)
        case EntityType.REVISION:
            return _merged_revisions(rows)
        case EntityType.ORIGIN:
            urls: dict[Id, str] = {}
            for entry_id, url in rows:
                urls.setdefault(entry_id, url)
            return sorted(urls.items(), key=_key)
        case _:
            return sorted(set(rows))


def _merged_dates(rows: Sequence[Row]) -> list[Row]:
    # Most batches hold every key once: this finds out at a quarter of the cost of merging.
    dates: dict[Id, int | None] = dict(rows)
    if len(dates) < len(rows):
        dates.clear()
        for entry_id, date in rows:
            dates[entry_id] = _earliest(dates.get(entry_id), date)
    return sorted(dates.items(), key=_key)


def _merged_revisions(rows: Sequence[Row]) -> list[Row]:
    revisions: dict[Id, Row] = {}
    for row in rows:
        known = revisions.setdefault(row[0], row)
        if known is not row:
            _, date, origin = row
            revisions[row[0]] = (row[0], _earliest(known[1], date), known[2] if origin is None else origin)
    return sorted(revisions.values(), key=_key)


def _earliest(a: int | None, b: int | None) -> int | None:
    if a is None or (b is not None and b < a):
        return b
    return a
