"""The versioned schema: its creation, and its comparison with what a program expects.

Nothing here is a transaction, since collections are not made in one: the document that holds the version is written
first, and each further step may be done again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pymongo import ASCENDING, IndexModel
from pymongo.database import Database
from pymongo.errors import OperationFailure

from provgate_storage.database.local import (
    VERSION,
    check_nothing_missing,
    check_range_counts,
    check_version,
    no_schema,
    not_ours,
)
from provgate_storage.model import EntityType, RelationType
from provgate_storage.rows.rows import LOCATION

# The collections of the database, their validators and indexes.
#
# A row of a relation is a document of its own, so that none grows with the number of rows, and is written without a
# look at any other. docs/architecture.md says which shard key each collection takes.

SCHEMA: Final = "schema"
"""The collection of one document: the version of the schema, and the range counts."""

SOURCE_INDEX: Final = "src"
DESTINATION_INDEX: Final = "dst"


@dataclass(frozen=True, slots=True)
class CollectionDefinition:
    """A collection as it is set up.

    Attributes:
        validator: what its documents must match.
        indexes: the fields of each index, all ascending, by its name; the one of `_id` is not among them.
    """

    validator: Mapping[str, Any]
    indexes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def _documents(required: Mapping[str, str], optional: Mapping[str, str] | None = None) -> Mapping[str, Any]:
    # Nothing else is allowed: a null where a field should be missing would hide a date for good.
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
    ends = {"src": "binData", "dst": "binData"}
    return CollectionDefinition(
        _documents({**ends, "path": "binData"} if relation.has_path else ends),
        # `_id` behind `src`: as a shard key it can be split between two rows of one source.
        {SOURCE_INDEX: ("src", "_id"), DESTINATION_INDEX: ("dst",)},
    )


DEFINITIONS: Final[dict[str, CollectionDefinition]] = {
    EntityType.CONTENT.value: CollectionDefinition(_documents({}, {"date": "long"})),
    EntityType.DIRECTORY.value: CollectionDefinition(_documents({}, {"date": "long"})),
    EntityType.REVISION.value: CollectionDefinition(_documents({}, {"date": "long", "origin": "binData"})),
    EntityType.ORIGIN.value: CollectionDefinition(_documents({"url": "string"})),
    LOCATION: CollectionDefinition(_documents({"path": "binData"})),
} | {relation.value: _relation(relation) for relation in RelationType}
"""The collections by the names of what they hold."""


_ID: Final = "provgate"
_NAMESPACE_EXISTS: Final = 48


def set_up(database: Database[Any], range_counts: Mapping[str, int]) -> None:
    """Creates what is missing, and records the range counts where none are.

    Several programs may do so at once: of range counts that differ, those that came first are recorded.

    Raises:
        SchemaMismatchError: another version, the collections of somebody else, or other range counts are there.
    """
    # In this order: whoever makes a collection has written the version before.
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
    """Records range counts in place of those that are recorded.

    Raises:
        SchemaMismatchError: the schema is not what is expected.
    """
    check(database, None)
    database[SCHEMA].update_one({"_id": _ID}, {"$set": {"range_counts": dict(range_counts)}})


def check(database: Database[Any], range_counts: Mapping[str, int] | None) -> None:
    """Compares version, collections, indexes and, unless they are None, range counts with those of the database.

    Raises:
        NotSetUpError: there is no schema, or a part of it is missing.
        SchemaMismatchError: they differ; the text says what differs and what to do.
    """
    recorded = check_recorded(database)
    check_nothing_missing(_missing(database))
    if not recorded["range_counts"]:
        # They are written last.
        raise no_schema()
    if range_counts is not None:
        check_range_counts(recorded["range_counts"], range_counts)


def check_recorded(database: Database[Any]) -> Mapping[str, Any]:
    """Compares the version alone, and returns the document that holds it. Raises `SchemaMismatchError`."""
    recorded = _recorded(database)
    if recorded is None:
        raise no_schema()
    check_version([recorded.get("version")])
    return recorded


def recorded_range_counts(database: Database[Any]) -> dict[str, int] | None:
    """Returns the recorded range count of each exchange; None where there is no schema."""
    recorded = _recorded(database)
    return None if recorded is None else dict(recorded["range_counts"])


def _recorded(database: Database[Any]) -> Mapping[str, Any] | None:
    # As a command: a `find_one` under a time limit of pymongo's is tried again until it has passed, without a pause.
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
            # Another program was faster, with the same one.
            if error.code != _NAMESPACE_EXISTS:
                raise
    elif options.get("validator") != definition.validator:
        database.command("collMod", name, validator=definition.validator)
    if definition.indexes:
        database[name].create_indexes(
            [
                IndexModel([(field, ASCENDING) for field in fields], name=index)
                for index, fields in definition.indexes.items()
            ]
        )


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
            if found.get(index, {}).get("key") != [(field, ASCENDING) for field in fields]:
                yield f"the index {index} of {name}"


def _options(database: Database[Any]) -> dict[str, Mapping[str, Any]]:
    return {found["name"]: found.get("options", {}) for found in database.list_collections()}
