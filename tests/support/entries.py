"""Entries of packages, as values of the model, and packages as msgpack alone encodes them.

| operation | entry |
|---|---|
| content_add, directory_add | `(id,)` or `(id, date or None)` |
| location_add | `(path,)` |
| origin_add | `(id, url)` |
| revision_add | `(id,)` or `(id, RevisionData)` |
| relation_add | `(src, dst, path or None)` |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping
from datetime import datetime
from typing import Any, Final, TypeAlias

import msgpack

from provgate_broker.topology.policy import OPERATIONS, Operation, WriteMethod
from provgate_broker.wire.package import decode_package
from provgate_storage.interface import ProvenanceStorageInterface
from provgate_storage.model import Id, RelationData, RelationType, RevisionData
from provgate_storage.rows.rows import Row
from provgate_storage.rows.values import to_date, to_microseconds

Entry: TypeAlias = tuple[Any, ...]

NOTHING_KNOWN: Final = RevisionData(None, None)
DATED: Final = (WriteMethod.CONTENT_ADD, WriteMethod.DIRECTORY_ADD)


def entry_id(number: int, first_byte: int | None = None) -> Id:
    """Returns an id. Those of 0 to 15 sort as the numbers do; the ids of successive numbers go round the ranges."""
    first = number % 16 * 16 if first_byte is None else first_byte
    return bytes([first]) + number.to_bytes(19)


def encode_package(entries: Iterable[Entry]) -> bytes:
    """Returns the body of a package of entries, valid or not."""
    packed: bytes = msgpack.packb({"data": list(entries)}, use_bin_type=True, datetime=True, default=_tagged)
    return packed


def decode_entries(body: bytes, operation: Operation) -> list[Entry]:
    """Returns the entries of a body, in full. Raises `MalformedPackageError`."""
    return [entry_of(row, operation) for row in decode_package(body, operation)]


def in_full(entry: Entry, operation: Operation) -> Entry:
    """Returns an entry with all its fields."""
    if len(entry) > 1 or operation.method is WriteMethod.LOCATION_ADD:
        return entry
    return (*entry, NOTHING_KNOWN if operation.method is WriteMethod.REVISION_ADD else None)


def entry_of(row: Row, operation: Operation) -> Entry:
    """Returns the entry of a row of a storage."""
    if operation.method in DATED:
        entry_id, date = row
        return entry_id, _date(date)
    if operation.method is WriteMethod.REVISION_ADD:
        entry_id, date, origin = row
        return entry_id, RevisionData(_date(date), origin)
    return (*row, None)[:3] if operation.relation is not None else row


def row_of(entry: Entry, operation: Operation) -> Row:
    """Returns the row of a storage for an entry."""
    entry = in_full(entry, operation)
    if operation.method in DATED:
        entry_id, date = entry
        return entry_id, _microseconds(date)
    if operation.method is WriteMethod.REVISION_ADD:
        entry_id, data = entry
        return entry_id, _microseconds(data.date), data.origin
    if operation.relation is not None and not operation.relation.has_path:
        return entry[:2]
    return entry


def rows_of(entries: Iterable[Entry], operation: Operation) -> list[Row]:
    """Returns the rows of a storage for entries."""
    return [row_of(entry, operation) for entry in entries]


def name_of(operation: Operation) -> str:
    """Returns the name under which a storage takes the rows of an operation."""
    return operation.relation or operation.method.value.removesuffix("_add")


OPERATIONS_BY_NAME: Final = {name_of(operation): operation for operation in OPERATIONS}


def add_entries(storage: ProvenanceStorageInterface, operation: Operation, entries: Iterable[Entry]) -> bool:
    """Adds entries of one operation, in their order, with one call of the interface, and returns its result."""
    full = [in_full(entry, operation) for entry in entries]
    if operation.relation is not None:
        return _add_relations(storage, operation.relation, full)
    return _ADDERS[operation.method](storage, full)


def _dated(entries: Iterable[Entry]) -> dict[Id, datetime | None]:
    union: dict[Id, datetime | None] = {}
    add_dates(union, entries)
    return union


def _add_origins(storage: ProvenanceStorageInterface, entries: Iterable[Entry]) -> bool:
    union: dict[Id, str] = {}
    add_origins(union, entries)
    return storage.origin_add(union)


def _add_revisions(storage: ProvenanceStorageInterface, entries: Iterable[Entry]) -> bool:
    union: dict[Id, RevisionData] = {}
    add_revisions(union, entries)
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


def _date(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else to_date(microseconds)


def _microseconds(date: datetime | None) -> int | None:
    return None if date is None else to_microseconds(date)


def _tagged(value: object) -> dict[Any, Any]:
    if not isinstance(value, RevisionData):
        raise TypeError(f"a row holds no {type(value).__name__}")
    return {
        b"swhtype": "dataclass",
        b"d": {"date": value.date, "origin": value.origin, "__type__": "RevisionData"},
    }


def earliest(a: datetime | None, b: datetime | None) -> datetime | None:
    """Returns the earlier of two dates; None is no date."""
    if a is None or (b is not None and b < a):
        return b
    return a


def merge_revisions(a: RevisionData, b: RevisionData) -> RevisionData:
    """Returns the merge of `a` and the later `b`: the earlier date, and the origin of `b` unless it is None."""
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
