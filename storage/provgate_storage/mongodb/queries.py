"""The queries of the reads: aggregation pipelines, each over one collection to begin with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeAlias

from provgate_storage.database.database import ends_of, names_with_paths
from provgate_storage.model import EntityType, Id, RelationType
from provgate_storage.rows.rows import LOCATION

IDS_OF_A_QUERY: Final = 250
"""Ids that one query looks up: a read of more takes several."""

Stage: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Query:
    """The collection that a pipeline starts at, and its stages."""

    collection: str
    pipeline: Sequence[Stage]


_IS_KNOWN: Final = {"$exists": True}


def dates(entity: EntityType, ids: Iterable[Id]) -> Iterator[Query]:
    """Returns the queries for (_id, date) of contents or directories."""
    return _by_ids(entity, "_id", ids, {"$match": {"date": _IS_KNOWN}})


def revisions(ids: Iterable[Id]) -> Iterator[Query]:
    """Returns the queries for (_id, date, origin) of revisions; one of the two may be missing."""
    return _by_ids(EntityType.REVISION, "_id", ids, {"$match": {"$or": [{"date": _IS_KNOWN}, {"origin": _IS_KNOWN}]}})


def origins(ids: Iterable[Id]) -> Iterator[Query]:
    """Returns the queries for (_id, url) of origins."""
    return _by_ids(EntityType.ORIGIN, "_id", ids)


def relations(relation: RelationType, ids: Iterable[Id], reverse: bool) -> Iterator[Query]:
    """Returns the queries for (src, dst, path) of rows of a relation; those without paths lack it."""
    return _by_ids(relation, "dst" if reverse else "src", ids, _WITHOUT_KEY)


def all_relations(relation: RelationType) -> Iterator[Query]:
    """Returns the query for (src, dst, path) of all rows of a relation."""
    return iter([Query(relation.value, [_WITHOUT_KEY])])


def all_entities(entity: EntityType) -> Iterator[Query]:
    """Returns the query for the _id of all entities of a type, those that other collections name included."""
    own, *others = ends_of(entity)
    return iter([_distinct(own[0], "_id", others)])


def all_locations() -> Iterator[Query]:
    """Returns the query for all paths, as _id, those of relations included."""
    _, *others = names_with_paths()
    return iter([_distinct(LOCATION, "path", [(name, "path") for name in others])])


def first_occurrences(content: Id) -> Iterator[Query]:
    """Returns the query for (revision, date, url, path) of rows of CNT_EARLY_IN_REV, by date and revision."""
    return iter([Query(RelationType.CNT_EARLY_IN_REV.value, [*_rows_of(content), *_DATED])])


def all_occurrences(content: Id) -> Iterator[Query]:
    """Returns the query for (revision, date, url, prefix, path) of the occurrences of a content, by date and revision.

    Those of one revision are in no order, and not each once: no operator of the server joins binary values, and its
    order of them is by length first.
    """
    in_directories = {
        "coll": RelationType.CNT_IN_DIR.value,
        "pipeline": [
            {"$match": {"src": content}},
            {
                "$lookup": {
                    "from": RelationType.DIR_IN_REV.value,
                    "localField": "dst",
                    "foreignField": "src",
                    "as": "place",
                }
            },
            {"$unwind": "$place"},
            {"$project": {"_id": False, "revision": "$place.dst", "prefix": "$place.path", "path": True}},
        ],
    }
    return iter(
        [Query(RelationType.CNT_EARLY_IN_REV.value, [*_rows_of(content), {"$unionWith": in_directories}, *_DATED])]
    )


_WITHOUT_KEY: Final[Stage] = {"$project": {"_id": False}}

# Origins are looked up last, so that the sort moves less.
_DATED: Final[Sequence[Stage]] = (
    {
        "$lookup": {
            "from": EntityType.REVISION.value,
            "localField": "revision",
            "foreignField": "_id",
            "as": "known",
        }
    },
    {"$unwind": "$known"},
    {"$match": {"known.date": _IS_KNOWN}},
    {"$sort": {"known.date": 1, "revision": 1}},
    {
        "$lookup": {
            "from": EntityType.ORIGIN.value,
            "localField": "known.origin",
            "foreignField": "_id",
            "as": "origin",
        }
    },
    {"$unwind": {"path": "$origin", "preserveNullAndEmptyArrays": True}},
    {
        "$project": {
            "revision": True,
            "prefix": True,
            "path": True,
            "date": "$known.date",
            "url": "$origin.url",
        }
    },
)


def _rows_of(content: Id) -> Sequence[Stage]:
    return [{"$match": {"src": content}}, {"$project": {"_id": False, "revision": "$dst", "path": True}}]


def _by_ids(collection: str, field: str, ids: Iterable[Id], *stages: Stage) -> Iterator[Query]:
    remaining = iter(ids)
    while piece := list(islice(remaining, IDS_OF_A_QUERY)):
        yield Query(str(collection), [{"$match": {field: {"$in": piece}}}, *stages])


def _distinct(collection: str, field: str, others: Iterable[tuple[str, str]]) -> Query:
    unions = [{"$unionWith": {"coll": name, "pipeline": [_values(other)]}} for name, other in others]
    # A field that is missing is null: a revision without an origin.
    return Query(collection, [_values(field), *unions, _values("_id"), {"$match": {"_id": {"$ne": None}}}])


def _values(field: str) -> Stage:
    return {"$group": {"_id": f"${field}"}}
