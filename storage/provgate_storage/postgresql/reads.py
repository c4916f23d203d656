"""The reads of the interface, each as a stream."""

# ruff: noqa: D102 - what a method without a docstring does is said by `Reads`

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from psycopg2.extensions import connection

from provgate_storage.database.stream import CancellableStream
from provgate_storage.model import EntityType, Id, Path, ProvenanceResult, RelationData, RelationType, RevisionData
from provgate_storage.postgresql import queries
from provgate_storage.postgresql.connections import ConnectionPool
from provgate_storage.postgresql.failures import translated_errors
from provgate_storage.postgresql.queries import Query
from provgate_storage.postgresql.writes import dated_rows
from provgate_storage.rows.arguments import checked_ids
from provgate_storage.rows.values import check_entity, check_id, check_limit, check_relation

T = TypeVar("T")


class PostgreSqlStream(CancellableStream[T, connection]):
    """What the streams have in common.

    Args:
        pool: where the connection comes from.
        queries: whose rows follow one another.
        chunk_row_count: rows of a chunk, at most.
    """

    def __init__(self, pool: ConnectionPool, queries: Iterable[Query], chunk_row_count: int) -> None:
        super().__init__()
        self._pool = pool
        self._queries = queries
        self._chunk_row_count = chunk_row_count

    def _take(self) -> connection:
        return self._pool.take()

    def _chunks(self, taken: connection) -> Iterator[list[T]]:
        remaining = iter(self._queries)
        query = next(remaining, None)
        while query is not None:
            following = next(remaining, None)
            self.check_running()
            with translated_errors():
                yield from self._chunks_of(taken, query, is_last=following is None)
            query = following

    def _end(self, held: connection) -> None:
        self._pool.cancel(held)

    def _give_back(self, held: connection, cancelled: bool) -> None:
        # The server may act on a cancellation only when the connection runs its next statement.
        give_up = self._pool.discard if cancelled else self._pool.give_back
        give_up(held)

    @abstractmethod
    def _chunks_of(self, taken: connection, query: Query, is_last: bool) -> Iterator[list[T]]:
        """Yields the chunks of a query, and sets `is_over` before the last one of the last query."""


class PostgreSqlRowStream(PostgreSqlStream[T]):
    """Rows of any number and kind, through a server-side cursor.

    Args:
        pool, queries, chunk_row_count: as for `PostgreSqlStream`.
        decode: makes a row of ours of one of the database's.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        queries: Iterable[Query],
        decode: Callable[[tuple[Any, ...]], T],
        chunk_row_count: int,
    ) -> None:
        super().__init__(pool, queries, chunk_row_count)
        self._decode = decode

    def _chunks_of(self, taken: connection, query: Query, is_last: bool) -> Iterator[list[T]]:
        rows = taken.cursor("rows")
        rows.execute(query.text, query.parameters)
        while chunk := rows.fetchmany(self._chunk_row_count):
            self.is_over = is_last and len(chunk) < self._chunk_row_count
            yield [self._decode(row) for row in chunk]
            self.check_running()
            if len(chunk) < self._chunk_row_count:
                break
        # Only here: when the iteration was left, the rollback ends the cursor. Closing it by then would be a statement
        # on a connection that is somebody else's.
        rows.close()


class PostgreSqlDatedStream(PostgreSqlStream[tuple[Id, int]]):
    """Ids and dates in microseconds since 1970, of queries that have no more rows than ids were given.

    Each answer is read whole, in the binary format of COPY: a cursor takes three round trips more, and psycopg2 an
    object for each id and date. A third of the time of a look-up of 1,000 contents was that.
    """

    def _chunks_of(self, taken: connection, query: Query, is_last: bool) -> Iterator[list[tuple[Id, int]]]:
        document = io.BytesIO()
        with taken.cursor() as cursor:
            text = cursor.mogrify(query.text, query.parameters).decode()
            cursor.copy_expert(f"COPY ({text}) TO STDOUT (FORMAT binary)", document)
        rows = dated_rows(document.getvalue())
        for start in range(0, len(rows), self._chunk_row_count):
            self.is_over = is_last and start + self._chunk_row_count >= len(rows)
            yield rows[start : start + self._chunk_row_count]
            self.check_running()


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
