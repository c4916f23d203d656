"""Writes rows into collections; the server merges each row by itself with the stored one.

A row is inserted. If its key is stored already, an update of that document merges it: `$min` keeps the earliest date,
`$set` replaces the preferred origin; rows of sets, and URLs, stay as they are. Nothing is read first. docs/decisions.md
says why this is better than upserts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from bson.int64 import Int64
from pymongo import UpdateOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from provgate_storage.model import EntityType, Id, Path
from provgate_storage.mongodb.connection import Document
from provgate_storage.mongodb.failures import DUPLICATE_KEY
from provgate_storage.rows.rows import LOCATION, Row

_RELATION: Final = ("_id", "src", "dst", "path")

PIECE_ROW_COUNT: Final = 1_000
"""Rows of one command: this limits its time, and the memory of a call with a million rows."""


def location_key(path: Path) -> bytes:
    """Returns the key of a location: its id, whose first byte is its range, and the path's SHA-256.

    Not the id alone: of two paths with one SHA-1, which an attacker can make, one would be lost.
    """
    return hashlib.sha1(path, usedforsecurity=False).digest() + hashlib.sha256(path).digest()


def relation_key(src: Id, dst: Id, path: Path | None = None) -> bytes:
    """Returns the key of a row of a relation: both ids, and the path's SHA-256 if there is a path.

    Keys of one relation have one length: BSON orders binary values by their length first.
    """
    return src + dst if path is None else src + dst + hashlib.sha256(path).digest()


def write(collection: Collection[Document], name: str, rows: Sequence[Row]) -> None:
    """Merges rows into a collection.

    Two writers of one key leave what either order of them leaves. A call that raises may have stored some of its rows.

    Args:
        collection: where to write.
        name: of an entity or a relation, or `LOCATION`.
        rows: as `provgate_storage.rows.rows.merged` returns them.

    Raises:
        PyMongoError: as the driver says.
    """
    for start in range(0, len(rows), PIECE_ROW_COUNT):
        documents = _documents(name, rows[start : start + PIECE_ROW_COUNT])
        stored = [documents[index] for index in _insert(collection, documents)]
        # Upserts, though the documents are there: if somebody deletes one by hand at this moment, no row is lost.
        updates = [
            UpdateOne({"_id": document["_id"]}, operators, upsert=True)
            for document in stored
            if (operators := _merge_operators(document))
        ]
        if updates:
            collection.bulk_write(updates, ordered=False)


def _insert(collection: Collection[Document], documents: list[Document]) -> list[int]:
    """Inserts documents, and returns the indexes of those whose key is stored already."""
    try:
        # Unordered: a stored or refused document does not stop the others, and a sharded cluster works on all shards.
        collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        details = error.details or {}
        failures = details.get("writeErrors", [])
        if details.get("writeConcernErrors") or any(failure["code"] != DUPLICATE_KEY for failure in failures):
            raise
        return [failure["index"] for failure in failures]
    return []


def _documents(name: str, rows: Sequence[Row]) -> list[Document]:
    """Returns rows as documents.

    Ids and paths are BSON binary, which pymongo gives back as bytes. A date is a 64-bit integer, the microseconds since
    1970-01-01 UTC: a BSON date has milliseconds. An unknown date or origin is a missing field, so that `$min` sets it:
    null is less than every number.
    """
    match name:
        case EntityType.CONTENT | EntityType.DIRECTORY:
            return [{"_id": id} if date is None else {"_id": id, "date": Int64(date)} for id, date in rows]
        case EntityType.REVISION:
            dates = _documents(EntityType.CONTENT, [row[:2] for row in rows])
            origins: list[Document] = [{} if row[2] is None else {"origin": row[2]} for row in rows]
            return [date | origin for date, origin in zip(dates, origins, strict=True)]
        case EntityType.ORIGIN:
            return [{"_id": id, "url": url} for id, url in rows]
        case _ if name == LOCATION:
            return [{"_id": location_key(path), "path": path} for (path,) in rows]
        case _:  # a relation, with or without paths
            return [dict(zip(_RELATION, (relation_key(*row), *row), strict=False)) for row in rows]


def _merge_operators(document: Document) -> dict[str, Document]:
    """Returns the update that merges a document into the stored one; empty if there is nothing to merge."""
    operators = {}
    if "date" in document:
        operators["$min"] = {"date": document["date"]}
    if "origin" in document:
        operators["$set"] = {"origin": document["origin"]}
    return operators
