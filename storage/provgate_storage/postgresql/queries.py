"""The SQL of the reads."""

# ruff: noqa: S608 - statements are made of names of this package; values are parameters

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from provgate_storage.database.database import ends_of, names_with_paths
from provgate_storage.model import EntityType, Id, RelationType
from provgate_storage.postgresql.writes import array_literal

IDS_OF_A_QUERY: Final = 1_000
"""Ids that one statement looks up: a read of more takes several."""


@dataclass(frozen=True, slots=True)
class Query:
    """A statement and its parameters."""

    text: str
    parameters: Mapping[str, Any]


# An array that is computed, rather than given, is planned for by the index whatever its length and the statistics.
_GIVEN_IDS: Final = "ANY (ARRAY(SELECT decode(given, 'hex') FROM unnest(%(ids)s::text[]) AS given))"

_EARLY: Final = "SELECT dst AS revision, path FROM content_in_revision WHERE src = %(content)s"

_IN_DIRECTORIES: Final = """
    SELECT directory_in_revision.dst,
        CASE WHEN directory_in_revision.path IN ('', '.') THEN content_in_directory.path
            ELSE directory_in_revision.path || '/'::bytea || content_in_directory.path END
    FROM content_in_directory JOIN directory_in_revision ON directory_in_revision.src = content_in_directory.dst
    WHERE content_in_directory.src = %(content)s
"""

# The order of origins needs no mention: one revision has one.
_RESULTS: Final = """
    SELECT found.revision, revision.date, origin.url, found.path
    FROM ({}) AS found
    JOIN revision ON revision.id = found.revision AND revision.date IS NOT NULL
    LEFT JOIN origin ON origin.id = revision.origin
    ORDER BY revision.date, found.revision, found.path
    LIMIT %(limit)s
"""


def dates(entity: EntityType, ids: Iterable[Id]) -> Iterator[Query]:
    """Returns the queries for (id, date) of contents or directories, each of `IDS_OF_A_QUERY` rows at most."""
    return _by_ids(f"SELECT id, date FROM {entity} WHERE id = {_GIVEN_IDS} AND date IS NOT NULL", ids)


def revisions(ids: Iterable[Id]) -> Iterator[Query]:
    """Returns the queries for (id, date, origin) of revisions."""
    known = "(date IS NOT NULL OR origin IS NOT NULL)"
    return _by_ids(f"SELECT id, date, origin FROM revision WHERE id = {_GIVEN_IDS} AND {known}", ids)


def origins(ids: Iterable[Id]) -> Iterator[Query]:
    """Returns the queries for (id, URL) of origins."""
    return _by_ids(f"SELECT id, url FROM origin WHERE id = {_GIVEN_IDS}", ids)


def relations(relation: RelationType, ids: Iterable[Id], reverse: bool) -> Iterator[Query]:
    """Returns the queries for (source, destination, path) of rows of a relation."""
    return _by_ids(f"{_rows_of(relation)} WHERE {'dst' if reverse else 'src'} = {_GIVEN_IDS}", ids)


def all_relations(relation: RelationType) -> Iterator[Query]:
    """Returns the query for (source, destination, path) of all rows of a relation."""
    return iter([Query(_rows_of(relation), {})])


def all_entities(entity: EntityType) -> Iterator[Query]:
    """Returns the query for the ids of all entities of a type, those that other tables name included."""
    named = [f"SELECT {column} AS id FROM {table}" for table, column in ends_of(entity)]
    return iter([Query(f"SELECT id FROM ({' UNION '.join(named)}) AS named WHERE id IS NOT NULL", {})])


def all_locations() -> Iterator[Query]:
    """Returns the query for all paths, those of relations included."""
    return iter([Query(" UNION ".join(f"SELECT path FROM {table}" for table in names_with_paths()), {})])


def first_occurrence(content: Id) -> Iterator[Query]:
    """Returns the query for (revision, date, URL, path) of the earliest occurrence of a content."""
    return iter([Query(_RESULTS.format(_EARLY), {"content": content, "limit": 1})])


def all_occurrences(content: Id, limit: int | None) -> Iterator[Query]:
    """Returns the query for (revision, date, URL, path) of the occurrences of a content, in their order, each once."""
    found = f"{_EARLY} UNION {_IN_DIRECTORIES}"
    return iter([Query(_RESULTS.format(found), {"content": content, "limit": limit})])


def _rows_of(relation: RelationType) -> str:
    return f"SELECT src, dst, {'path' if relation.has_path else 'NULL::bytea'} FROM {relation}"


def _by_ids(text: str, ids: Iterable[Id]) -> Iterator[Query]:
    remaining = iter(ids)
    while piece := list(islice(remaining, IDS_OF_A_QUERY)):
        yield Query(text, {"ids": array_literal(piece)})
