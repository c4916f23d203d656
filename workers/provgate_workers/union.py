"""One storage call of many packages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

from provgate_broker.topology import Operation, WriteMethod
from provgate_broker.wire import Entry
from provgate_storage.interface import ProvenanceStorageInterface
from provgate_storage.merge import add_dates, add_origins, add_relations, add_revisions
from provgate_storage.model import Id, RelationData, RelationType, RevisionData

_UNKNOWN_REVISION: Final = RevisionData(None, None)


def add_all(storage: ProvenanceStorageInterface, operation: Operation, entries: Iterable[Entry]) -> bool:
    """Adds the entries of packages of one operation, in their order, in one storage call, and returns its result."""
    if operation.relation is not None:
        return _add_relations(storage, operation.relation, entries)
    return _ADDERS[operation.method](storage, entries)


def _dated(entries: Iterable[Entry]) -> dict[Id, datetime | None]:
    union: dict[Id, datetime | None] = {}
    add_dates(union, (entry if len(entry) == 2 else (entry[0], None) for entry in entries))
    return union


def _add_origins(storage: ProvenanceStorageInterface, entries: Iterable[Entry]) -> bool:
    union: dict[Id, str] = {}
    add_origins(union, entries)
    return storage.origin_add(union)


def _add_revisions(storage: ProvenanceStorageInterface, entries: Iterable[Entry]) -> bool:
    union: dict[Id, RevisionData] = {}
    add_revisions(union, (entry if len(entry) == 2 else (entry[0], _UNKNOWN_REVISION) for entry in entries))
    return storage.revision_add(union)


def _add_relations(storage: ProvenanceStorageInterface, relation: RelationType, entries: Iterable[Entry]) -> bool:
    union: dict[Id, set[RelationData]] = {}
    add_relations(union, ((src, RelationData(dst, path)) for src, dst, path in entries))
    return storage.relation_add(relation, union)


_ADDERS: Final[dict[WriteMethod, Callable[[ProvenanceStorageInterface, Iterable[Entry]], bool]]] = {
    WriteMethod.CONTENT_ADD: lambda storage, entries: storage.content_add(_dated(entries)),
    WriteMethod.DIRECTORY_ADD: lambda storage, entries: storage.directory_add(_dated(entries)),
    WriteMethod.LOCATION_ADD: lambda storage, entries: storage.location_add({path for (path,) in entries}),
    WriteMethod.ORIGIN_ADD: _add_origins,
    WriteMethod.REVISION_ADD: _add_revisions,
}
