"""Rows into collections, merged with what is stored by the server: one upsert a row, keyed by `_id`.

Every filter names the shard key, every operator merges: `$min` keeps the earliest date, `$setOnInsert` the first URL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, TypeAlias

import pymongo
from pymongo import UpdateOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from provgate_storage.database import LOCATION
from provgate_storage.errors import StorageConflictError
from provgate_storage.model import EntityType, RelationType
from provgate_storage.mongodb.encoding import encoded_date, location_key, relation_key
from provgate_storage.mongodb.failures import DUPLICATE_KEY

Row: TypeAlias = tuple[Any, ...]
Operators: TypeAlias = Mapping[str, Mapping[str, Any]]

PIECE_ROW_COUNT: Final = 1_000
"""Rows of one command: what bounds its time, and the memory of a call with a million."""

_TRIES: Final = 5


def write(collection: Collection[Any], name: str, rows: Sequence[Row], timeout_s: float) -> None:
    """Merges rows into the collection of a name.

    Each row is merged at once and by itself, so that two writers of one key leave what either order of them leaves. A
    call that raises may have stored some of its rows.

    Args:
        collection: where to.
        name: what the rows are of, as `DatabaseStorage` says.
        rows: as `DatabaseStorage` says, sorted by key.
        timeout_s: how long each piece of them may take, in seconds.

    Raises:
        StorageConflictError: other writers were met again and again.
        PyMongoError: as the driver says.
    """
    update = _UPDATES[name]
    remaining = iter(rows)
    while piece := list(islice(remaining, PIECE_ROW_COUNT)):
        with pymongo.timeout(timeout_s):
            _write_piece(collection, [update(row) for row in piece])


def _write_piece(collection: Collection[Any], updates: list[UpdateOne]) -> None:
    for _ in range(_TRIES):
        try:
            # Unordered: a row that is refused leaves the others alone, and a sharded cluster works on all shards.
            collection.bulk_write(updates, ordered=False)
        except BulkWriteError as error:
            updates = [updates[index] for index in _met(error)]
        else:
            return
    raise StorageConflictError(f"MongoDB: {len(updates)} rows met other writers {_TRIES} times")


def _met(error: BulkWriteError) -> Iterator[int]:
    """Returns the places of the rows that another writer inserted at the same moment; raises where another error is.

    The server tries such an upsert again by itself where its filter is the key alone.
    """
    details = error.details or {}
    failures = details.get("writeErrors", [])
    if details.get("writeConcernErrors") or any(failure["code"] != DUPLICATE_KEY for failure in failures):
        raise error
    return (failure["index"] for failure in failures)


def _dated(row: Row) -> UpdateOne:
    entry_id, date = row
    return _upsert({"_id": entry_id}, _earliest(date))


def _revision(row: Row) -> UpdateOne:
    entry_id, date, origin = row
    return _upsert({"_id": entry_id}, {**_earliest(date), **({} if origin is None else {"$set": {"origin": origin}})})


def _origin(row: Row) -> UpdateOne:
    entry_id, url = row
    return _upsert({"_id": entry_id}, {"$setOnInsert": {"url": url}})


def _location(row: Row) -> UpdateOne:
    (path,) = row
    return _upsert({"_id": location_key(path)}, {"$setOnInsert": {"path": path}})


def _relation(row: Row) -> UpdateOne:
    src, dst, *path = row
    fields = {"dst": dst, "path": path[0]} if path else {"dst": dst}
    return _upsert({"_id": relation_key(src, dst, *path), "src": src}, {"$setOnInsert": fields})


def _earliest(date: Any) -> Operators:
    return {} if date is None else {"$min": {"date": encoded_date(date)}}


def _upsert(key: Mapping[str, bytes], operators: Operators) -> UpdateOne:
    # With nothing to set, an upsert still needs an operator.
    return UpdateOne(key, operators or {"$setOnInsert": {}}, upsert=True)


_UPDATES: Final[Mapping[str, Callable[[Row], UpdateOne]]] = {
    EntityType.CONTENT: _dated,
    EntityType.DIRECTORY: _dated,
    EntityType.REVISION: _revision,
    EntityType.ORIGIN: _origin,
    LOCATION: _location,
    **dict.fromkeys(RelationType, _relation),
}
