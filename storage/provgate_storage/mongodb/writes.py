"""Rows into collections, merged with what is stored by the server, each row at once and by itself.

A row is inserted; where its key is stored already, an update of that one document merges it: `$min` keeps the earliest
date, `$set` replaces the preferred origin, and rows of sets, and URLs, are there and stay. Nothing is read first.
docs/decisions.md says why this rather than upserts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeAlias

from bson.int64 import Int64
from pymongo import UpdateOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from provgate_storage.model import EntityType, Id, Path, RelationType
from provgate_storage.mongodb.failures import DUPLICATE_KEY
from provgate_storage.rows.rows import LOCATION, Row

# Values as documents hold them.
#
# Ids and paths are BSON binary, which pymongo gives back as bytes. A date is a 64-bit integer, the microseconds since
# 1970-01-01 UTC: a BSON date has milliseconds. A date or an origin that is not known is a field that is not there, so
# that `$min` sets it; null is less than every number.


def location_key(path: Path) -> bytes:
    """Returns the key of a location: its id, whose first byte is its range, and the path's SHA-256.

    The id alone will not do: whoever finds two paths with one SHA-1 would have one of them lost.
    """
    return hashlib.sha1(path, usedforsecurity=False).digest() + hashlib.sha256(path).digest()


def relation_key(src: Id, dst: Id, path: Path | None = None) -> bytes:
    """Returns the key of a row of a relation: both ids, and the path's SHA-256 where there is one.

    Keys of one relation are of one length: BSON orders binary values by their length first.
    """
    return src + dst if path is None else src + dst + hashlib.sha256(path).digest()


Fields: TypeAlias = dict[str, Any]

PIECE_ROW_COUNT: Final = 1_000
"""Rows of one command: what bounds its time, and the memory of a call with a million."""


@dataclass(frozen=True, slots=True)
class RowWrite:
    """How the rows of one collection are written.

    Attributes:
        document: makes the document of a row whose key is not stored, shard key and all.
        merge: makes the operators that merge a row into the document of its key; none where there is nothing to merge.
    """

    document: Callable[[Row], Fields]
    merge: Callable[[Row], Mapping[str, Fields]]


def write(collection: Collection[Any], name: str, rows: Sequence[Row]) -> None:
    """Merges rows into the collection of a name.

    Two writers of one key leave what either order of them leaves. A call that raises may have stored some of its rows.

    Args:
        collection: where to.
        name: what the rows are of, as `DatabaseStorage` says.
        rows: as `DatabaseStorage` says.

    Raises:
        PyMongoError: as the driver says.
    """
    row_write = _ROW_WRITES[name]
    remaining = iter(rows)
    while piece := list(islice(remaining, PIECE_ROW_COUNT)):
        stored = [piece[index] for index in _insert(collection, [row_write.document(row) for row in piece])]
        _merge(collection, row_write, stored)


def _insert(collection: Collection[Any], documents: list[Fields]) -> Iterator[int]:
    """Inserts what is not there, and returns the places of what is."""
    try:
        # Unordered: what is stored or refused leaves the others alone, and a sharded cluster works on all shards.
        collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        details = error.details or {}
        failures = details.get("writeErrors", [])
        if details.get("writeConcernErrors") or any(failure["code"] != DUPLICATE_KEY for failure in failures):
            raise
        return (failure["index"] for failure in failures)
    return iter(())


def _merge(collection: Collection[Any], row_write: RowWrite, rows: Sequence[Row]) -> None:
    # An upsert, though the documents are there: whoever deletes one by hand in this moment loses no row.
    updates = [
        UpdateOne({"_id": row_write.document(row)["_id"]}, operators, upsert=True)
        for row in rows
        if (operators := row_write.merge(row))
    ]
    if updates:
        collection.bulk_write(updates, ordered=False)


def _dated(row: Row) -> Fields:
    entry_id, date = row
    return {"_id": entry_id, **_known("date", _encoded(date))}


def _earlier(row: Row) -> Mapping[str, Fields]:
    _, date = row
    return _known("$min", _known("date", _encoded(date)))


def _revision(row: Row) -> Fields:
    entry_id, date, origin = row
    return {"_id": entry_id, **_known("date", _encoded(date)), **_known("origin", origin)}


def _merged_revision(row: Row) -> Mapping[str, Fields]:
    _, date, origin = row
    return {**_known("$min", _known("date", _encoded(date))), **_known("$set", _known("origin", origin))}


def _origin(row: Row) -> Fields:
    entry_id, url = row
    return {"_id": entry_id, "url": url}


def _location(row: Row) -> Fields:
    (path,) = row
    return {"_id": location_key(path), "path": path}


def _relation(row: Row) -> Fields:
    src, dst, *path = row
    return {"_id": relation_key(src, dst, *path), "src": src, "dst": dst, **_known("path", *path)}


def _nothing(row: Row) -> Mapping[str, Fields]:
    return {}


def _encoded(microseconds: int | None) -> Int64 | None:
    return None if microseconds is None else Int64(microseconds)


def _known(name: str, value: Any = None) -> Fields:
    return {} if value is None or value == {} else {name: value}


_ROW_WRITES: Final[Mapping[str, RowWrite]] = {
    EntityType.CONTENT: RowWrite(_dated, _earlier),
    EntityType.DIRECTORY: RowWrite(_dated, _earlier),
    EntityType.REVISION: RowWrite(_revision, _merged_revision),
    EntityType.ORIGIN: RowWrite(_origin, _nothing),
    LOCATION: RowWrite(_location, _nothing),
    **dict.fromkeys(RelationType, RowWrite(_relation, _nothing)),
}
