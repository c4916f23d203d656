"""The reads of the interface, each as a stream."""

# ruff: noqa: D102 - what a method without a docstring does is said by `Reads`

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from provgate_storage.arguments import checked_ids
from provgate_storage.model import EntityType, Id, Path, ProvenanceResult, RelationData, RelationType, RevisionData
from provgate_storage.postgresql import queries
from provgate_storage.postgresql.pool import ConnectionPool
from provgate_storage.postgresql.queries import Query
from provgate_storage.postgresql.stream import PostgreSqlDatedStream, PostgreSqlRowStream
from provgate_storage.values import check_entity, check_id, check_limit, check_relation

T = TypeVar("T")


class PostgreSqlReads:
    """Makes the stream of each read, as `Reads` says.

    Args:
        pool: where the streams take their connections from.
        chunk_row_count: rows of a chunk, at most.
    """

    def __init__(self, pool: ConnectionPool, chunk_row_count: int) -> None:
        self._pool = pool
        self._chunk_row_count = chunk_row_count

    def contents(self, ids: Iterable[Id]) -> PostgreSqlDatedStream:
        return self._dated(EntityType.CONTENT, ids)

    def directories(self, ids: Iterable[Id]) -> PostgreSqlDatedStream:
        return self._dated(EntityType.DIRECTORY, ids)

    def revisions(self, ids: Iterable[Id]) -> PostgreSqlRowStream[tuple[Id, RevisionData]]:
        return self._stream(queries.revisions(checked_ids(ids)), _revision)

    def origins(self, ids: Iterable[Id]) -> PostgreSqlRowStream[tuple[Id, str]]:
        return self._stream(queries.origins(checked_ids(ids)), _with_id)

    def relations(
        self, relation: RelationType, ids: Iterable[Id], reverse: bool
    ) -> PostgreSqlRowStream[tuple[Id, RelationData]]:
        return self._stream(queries.relations(check_relation(relation), checked_ids(ids), reverse), _relation)

    def all_relations(self, relation: RelationType) -> PostgreSqlRowStream[tuple[Id, RelationData]]:
        return self._stream(queries.all_relations(check_relation(relation)), _relation)

    def all_entities(self, entity: EntityType) -> PostgreSqlRowStream[Id]:
        return self._stream(queries.all_entities(check_entity(entity)), _bytes)

    def all_locations(self) -> PostgreSqlRowStream[Path]:
        return self._stream(queries.all_locations(), _bytes)

    def first_occurrence(self, content: Id) -> PostgreSqlRowStream[ProvenanceResult]:
        return self._stream(queries.first_occurrence(check_id(content)), _occurrence_of(content))

    def all_occurrences(self, content: Id, limit: int | None) -> PostgreSqlRowStream[ProvenanceResult]:
        return self._stream(queries.all_occurrences(check_id(content), check_limit(limit)), _occurrence_of(content))

    def _dated(self, entity: EntityType, ids: Iterable[Id]) -> PostgreSqlDatedStream:
        return PostgreSqlDatedStream(self._pool, queries.dates(entity, checked_ids(ids)), self._chunk_row_count)

    def _stream(self, made: Iterable[Query], decode: Callable[[tuple[Any, ...]], T]) -> PostgreSqlRowStream[T]:
        return PostgreSqlRowStream(self._pool, made, decode, self._chunk_row_count)


def _bytes(row: tuple[Any, ...]) -> bytes:
    return bytes(row[0])


def _with_id(row: tuple[Any, ...]) -> tuple[Id, Any]:
    return bytes(row[0]), row[1]


def _revision(row: tuple[Any, ...]) -> tuple[Id, RevisionData]:
    return bytes(row[0]), RevisionData(row[1], None if row[2] is None else bytes(row[2]))


def _relation(row: tuple[Any, ...]) -> tuple[Id, RelationData]:
    return bytes(row[0]), RelationData(bytes(row[1]), None if row[2] is None else bytes(row[2]))


def _occurrence_of(content: Id) -> Callable[[tuple[Any, ...]], ProvenanceResult]:
    def decode(row: tuple[Any, ...]) -> ProvenanceResult:
        return ProvenanceResult(content, bytes(row[0]), row[1], row[2], bytes(row[3]))

    return decode
