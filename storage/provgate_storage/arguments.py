"""The arguments of writes and reads, checked whole before anything is sent, each entry once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, TypeAlias

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
    if not isinstance(entries, Mapping):
        return dict.fromkeys(checked_ids(entries))
    return {check_id(entry_id): None if date is None else check_date(date) for entry_id, date in entries.items()}


def checked_locations(paths: Iterable[Path]) -> set[Path]:
    """Returns paths, each once."""
    return {check_path(path) for path in paths}


def checked_origins(orgs: Mapping[Id, str]) -> dict[Id, str]:
    """Returns origins with their URLs."""
    return {check_id(entry_id): check_url(url) for entry_id, url in orgs.items()}


def checked_revisions(revs: Iterable[Id] | Mapping[Id, RevisionData]) -> dict[Id, RevisionData]:
    """Returns revisions with what is known of them."""
    if not isinstance(revs, Mapping):
        return dict.fromkeys(checked_ids(revs), _NOTHING_KNOWN)
    return {check_id(entry_id): _checked_revision(data) for entry_id, data in revs.items()}


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
