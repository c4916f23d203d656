"""The collections and indexes, their creation, and their comparison with what a program expects.

A row of a relation is a document of its own: no document grows with the number of rows, and a row is written without a
look at any other. docs/architecture.md says which shard key each collection takes.

Collections are not made in a transaction. So the document with the version is written first, and each further step may
be repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from pymongo import ASCENDING, IndexModel
from pymongo.database import Database
from pymongo.errors import OperationFailure

from provgate_storage.database.schema import (
    VERSION,
    check_nothing_missing,
    check_range_counts,
    check_version,
    no_schema,
    not_ours,
)
from provgate_storage.model import EntityType, RelationType
from provgate_storage.rows.rows import LOCATION

SCHEMA: Final = "schema"
"""The collection of one document: the version of the schema, and the range counts."""

_ID: Final = "provgate"
_NAMESPACE_EXISTS: Final = 48


class CollectionDefinition(NamedTuple):
    """A collection as it is set up.

    Attributes:
        validator: what its documents must match.
        indexes: the fields of each index, all ascending, by its name; without the index of `_id`.
    """

    validator: Mapping[str, Any]
    indexes: Mapping[str, tuple[str, ...]]


def _validator(required: Mapping[str, str], optional: Mapping[str, str] | None = None) -> Mapping[str, Any]:
    # Nothing else is allowed: a null in place of a missing field would hide a date for good.
    types = {"_id": "binData", **required, **(optional or {})}
    return {
        "$jsonSchema": {
            "bsonType": "object",
            "required": ["_id", *required],
            "properties": {name: {"bsonType": bson_type} for name, bson_type in types.items()},
            "additionalProperties": False,
        }
    }


def _relation(relation: RelationType) -> CollectionDefinition:
    path = {"path": "binData"} if relation.has_path else {}
    return CollectionDefinition(
        _validator({"src": "binData", "dst": "binData", **path}),
        # `_id` behind `src`: as a shard key it can be split between two rows of one source.
        {"src": ("src", "_id"), "dst": ("dst",)},
    )


DEFINITIONS: Final[dict[str, CollectionDefinition]] = {
    EntityType.CONTENT.value: CollectionDefinition(_validator({}, {"date": "long"}), {}),
    EntityType.DIRECTORY.value: CollectionDefinition(_validator({}, {"date": "long"}), {}),
    EntityType.REVISION.value: CollectionDefinition(_validator({}, {"date": "long", "origin": "binData"}), {}),
    EntityType.ORIGIN.value: CollectionDefinition(_validator({"url": "string"}), {}),
    LOCATION: CollectionDefinition(_validator({"path": "binData"}), {}),
} | {relation.value: _relation(relation) for relation in RelationType}
"""The collections by the names of what they hold."""


def set_up(database: Database[Any], range_counts: Mapping[str, int]) -> None:
    """Creates what is missing, and records the range counts if none are recorded.

    Several programs may do so at once: of differing range counts, the first ones are recorded.

    Raises:
        SchemaMismatchError: the database holds another version, another program's collections, or other range counts.
    """
    # In this order: every program writes the version before it makes a collection.
    options = _options(database)
    there = DEFINITIONS.keys() & options.keys()
    if there and _recorded(database) is None:
        raise not_ours(there, "collections")
    schemas = database[SCHEMA]
    schemas.update_one({"_id": _ID}, {"$setOnInsert": {"version": VERSION, "range_counts": {}}}, upsert=True)
    check_recorded(database)
    for name, definition in DEFINITIONS.items():
        _make(database, name, definition, options.get(name))
    schemas.update_one({"_id": _ID, "range_counts": {}}, {"$set": {"range_counts": dict(range_counts)}})
    check(database, range_counts)


def replace_range_counts(database: Database[Any], range_counts: Mapping[str, int]) -> None:
    """As `LocalStorage.replace_range_counts`."""
    check(database, None)
    database[SCHEMA].update_one({"_id": _ID}, {"$set": {"range_counts": dict(range_counts)}})


def check(database: Database[Any], range_counts: Mapping[str, int] | None) -> None:
    """As `LocalStorage.check`."""
    recorded = check_recorded(database)
    check_nothing_missing(_missing(database))
    if not recorded["range_counts"]:
        # They are written last.
        raise no_schema()
    check_range_counts(recorded["range_counts"], range_counts)


def check_recorded(database: Database[Any]) -> Mapping[str, Any]:
    """Checks the version alone, and returns the document that holds it. Raises `SchemaMismatchError`."""
    recorded = _recorded(database)
    if recorded is None:
        raise no_schema()
    check_version([recorded.get("version")])
    return recorded


def recorded_range_counts(database: Database[Any]) -> dict[str, int] | None:
    """As `LocalStorage.recorded_range_counts`."""
    recorded = _recorded(database)
    return None if recorded is None else dict(recorded["range_counts"])


def _recorded(database: Database[Any]) -> Mapping[str, Any] | None:
    # As a command: under pymongo's time limit, `find_one` retries without a pause until the limit has passed.
    found = database.command(
        "find",
        SCHEMA,
        filter={"_id": _ID},
        limit=1,
        singleBatch=True,
        read_preference=database.read_preference,
        readConcern=database.read_concern.document,
    )
    documents: list[Mapping[str, Any]] = found["cursor"]["firstBatch"]
    return documents[0] if documents else None


def _make(
    database: Database[Any], name: str, definition: CollectionDefinition, options: Mapping[str, Any] | None
) -> None:
    if options is None:
        try:
            database.create_collection(name, check_exists=False, validator=definition.validator)
        except OperationFailure as error:
            # Another program was faster, with the same collection.
            if error.code != _NAMESPACE_EXISTS:
                raise
    elif options.get("validator") != definition.validator:
        database.command("collMod", name, validator=definition.validator)
    if definition.indexes:
        indexes = [IndexModel(_keys(fields), name=index) for index, fields in definition.indexes.items()]
        database[name].create_indexes(indexes)


def _missing(database: Database[Any]) -> Iterator[str]:
    options = _options(database)
    for name, definition in DEFINITIONS.items():
        if name not in options:
            yield name
            continue
        if options[name].get("validator") != definition.validator:
            yield f"the validator of {name}"
        found = database[name].index_information() if definition.indexes else {}
        for index, fields in definition.indexes.items():
            if found.get(index, {}).get("key") != _keys(fields):
                yield f"the index {index} of {name}"


def _keys(fields: tuple[str, ...]) -> list[tuple[str, int]]:
    return [(field, ASCENDING) for field in fields]


def _options(database: Database[Any]) -> dict[str, Mapping[str, Any]]:
    return {found["name"]: found.get("options", {}) for found in database.list_collections()}
