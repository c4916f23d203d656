"""The merge rules in the values of the model, as plain as can be: what becomes of two values stored for one key."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from datetime import datetime

from provgate_storage.model import Id, RelationData, RevisionData


def earliest(a: datetime | None, b: datetime | None) -> datetime | None:
    """Returns the earlier of two dates; None is no date."""
    if a is None or (b is not None and b < a):
        return b
    return a


def merge_revisions(a: RevisionData, b: RevisionData) -> RevisionData:
    """Returns what `b`, stored after `a`, leaves: the earlier date, and the origin of `b` unless it is None."""
    return RevisionData(earliest(a.date, b.date), a.origin if b.origin is None else b.origin)


def add_dates(into: MutableMapping[Id, datetime | None], entries: Iterable[tuple[Id, datetime | None]]) -> None:
    """Adds contents or directories with their dates."""
    for entry_id, date in entries:
        into[entry_id] = earliest(into.get(entry_id), date)


def add_origins(into: MutableMapping[Id, str], entries: Iterable[tuple[Id, str]]) -> None:
    """Adds origins; the first URL stays."""
    for entry_id, url in entries:
        into.setdefault(entry_id, url)


def add_revisions(into: MutableMapping[Id, RevisionData], entries: Iterable[tuple[Id, RevisionData]]) -> None:
    """Adds revisions, later ones last."""
    for entry_id, data in entries:
        known = into.get(entry_id)
        into[entry_id] = data if known is None else merge_revisions(known, data)


def add_relations(into: MutableMapping[Id, set[RelationData]], entries: Iterable[tuple[Id, RelationData]]) -> None:
    """Adds rows of one relation, by source."""
    for src, data in entries:
        into.setdefault(src, set()).add(data)
