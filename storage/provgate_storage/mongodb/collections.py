"""The collections of the database, their validators and indexes.

A row of a relation is a document of its own, so that none grows with the number of rows, and is written without a look
at any other. docs/architecture.md says which shard key each collection takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from provgate_storage.model import EntityType, RelationType
from provgate_storage.rows import LOCATION

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
