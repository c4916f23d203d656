"""The arguments of writes and reads, checked whole before anything is sent, and with their duplicates merged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, TypeAlias

from provgate_storage.merge import add_dates, add_origins, add_revisions
from provgate_storage.model import Id, Path, RelationData, RelationType, RevisionData
from provgate_storage.values import check_date, check_id, check_path, check_relation_path, check_url

RelationRow: TypeAlias = tuple[Id, Id, Path | None]
"""(source, destination, path)."""

_NOTHING_KNOWN: Final = RevisionData(None, None)


def checked_ids(ids: Iterable[Id]) -> set[Id]:
    """Returns the ids of a read, each once."""
    return {check_id(entry_id) for entry_id in ids}


def checked_dates(entries: Iterable[Id] | Mapping[Id, datetime | None]) -> dict[Id, datetime | None]:
    """Returns contents or directories with their dates."""
    pairs = entries.items() if isinstance(entries, Mapping) else ((entry_id, None) for entry_id in entries)
    merged: dict[Id, datetime | None] = {}
    add_dates(merged, ((check_id(entry_id), None if date is None else check_date(date)) for entry_id, date in pairs))
    return merged


def checked_locations(paths: Iterable[Path]) -> set[Path]:
    """Returns paths, each once."""
    return {check_path(path) for path in paths}


def checked_origins(orgs: Mapping[Id, str]) -> dict[Id, str]:
    """Returns origins with their URLs."""
    merged: dict[Id, str] = {}
    add_origins(merged, ((check_id(entry_id), check_url(url)) for entry_id, url in orgs.items()))
    return merged


def checked_revisions(revs: Iterable[Id] | Mapping[Id, RevisionData]) -> dict[Id, RevisionData]:
    """Returns revisions with what is known of them."""
    pairs = revs.items() if isinstance(revs, Mapping) else ((entry_id, _NOTHING_KNOWN) for entry_id in revs)
    merged: dict[Id, RevisionData] = {}
    add_revisions(merged, ((check_id(entry_id), _checked_revision(data)) for entry_id, data in pairs))
    return merged


def checked_relations(relation: RelationType, data: Mapping[Id, Iterable[RelationData]]) -> set[RelationRow]:
    """Returns the rows of a relation, each once."""
    return {
        (check_id(src), check_id(row.dst), check_relation_path(relation, row.path))
        for src, rows in data.items()
        for row in rows
    }


def _checked_revision(data: RevisionData) -> RevisionData:
    date = None if data.date is None else check_date(data.date)
    origin = None if data.origin is None else check_id(data.origin)
    return RevisionData(date, origin)
