"""The arguments of writes and reads, checked whole before anything is sent; those of writes as rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from provgate_storage.model import Id, Path, RelationData, RelationType, RevisionData
from provgate_storage.rows.bulk import are_ids, are_paths, are_urls, check_each, check_relation_paths, microseconds_of
from provgate_storage.rows.rows import Row
from provgate_storage.rows.values import check_id, check_path, check_url


def checked_ids(ids: Iterable[Id]) -> set[Id]:
    """Returns the ids of a read, each once."""
    return set(_ids(ids))


def dated_rows(entries: Iterable[Id] | Mapping[Id, datetime | None]) -> list[Row]:
    """Returns contents or directories with their dates."""
    if not isinstance(entries, Mapping):
        return [(entry_id, None) for entry_id in _ids(entries)]
    return list(zip(_ids(entries), microseconds_of(list(entries.values())), strict=True))


def location_rows(paths: Iterable[Path]) -> list[Row]:
    """Returns paths."""
    values = list(paths)
    check_each(are_paths, check_path, values)
    return [(path,) for path in values]


def origin_rows(orgs: Mapping[Id, str]) -> list[Row]:
    """Returns origins with their URLs."""
    urls = list(orgs.values())
    check_each(are_urls, check_url, urls)
    return list(zip(_ids(orgs), urls, strict=True))


def revision_rows(revs: Iterable[Id] | Mapping[Id, RevisionData]) -> list[Row]:
    """Returns revisions with what is known of them."""
    if not isinstance(revs, Mapping):
        return [(entry_id, None, None) for entry_id in _ids(revs)]
    known = list(revs.values())
    dates = microseconds_of([data.date for data in known])
    origins = [data.origin for data in known]
    check_each(are_ids, check_id, [origin for origin in origins if origin is not None])
    return list(zip(_ids(revs), dates, origins, strict=True))


def relation_rows(relation: RelationType, data: Mapping[Id, Iterable[RelationData]]) -> list[Row]:
    """Returns the rows of a relation."""
    rows = [(src, row.dst, row.path) for src, of_source in data.items() for row in of_source]
    check_each(are_ids, check_id, list(data))
    check_each(are_ids, check_id, [dst for _, dst, _ in rows])
    check_relation_paths(relation, [path for _, _, path in rows])
    return rows if relation.has_path else [(src, dst) for src, dst, _ in rows]


def _ids(ids: Iterable[Id]) -> list[Id]:
    values = list(ids)
    check_each(are_ids, check_id, values)
    return values
