"""The reads: their SQL, their rows, and the streams that run them."""

# ruff: noqa: D102, S608 - `Reads` documents the methods; statements are made of names of this package

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from psycopg2.extensions import connection

from provgate_storage.database.reads import Reads, RowStream
from provgate_storage.database.schema import ends_of, names_with_paths
from provgate_storage.model import EntityType, Id, Path, ProvenanceResult, RelationData, RelationType, RevisionData
from provgate_storage.postgresql.failures import translated_errors
from provgate_storage.postgresql.pool import ConnectionPool
from provgate_storage.postgresql.writes import array_literal, rows_of_dated_document

T = TypeVar("T")

DatabaseRow: TypeAlias = tuple[Any, ...]

IDS_OF_A_QUERY: Final = 1_000
"""Ids that one statement looks up: a read of more ids takes several statements."""


class Query(NamedTuple):
    """A statement and its parameters."""

    text: str
    parameters: Mapping[str, object]


class PostgreSqlStream(RowStream[T]):
    """The rows of one or several queries.

    Args:
        pool: where the connection comes from.
        queries: the statements, one after the other.
        chunk_row_count: the largest number of rows of a chunk.
    """

    _connection: connection

    def __init__(self, pool: ConnectionPool, queries: Iterable[Query], chunk_row_count: int) -> None:
        super().__init__()
        self.queries = queries
        self._pool = pool
        self._chunk_row_count = chunk_row_count

    def _acquire(self) -> None:
        self._connection = self._pool.acquire()

    def _chunks(self) -> Iterator[list[T]]:
        remaining = iter(self.queries)
        query = next(remaining, None)
        while query is not None:
            following = next(remaining, None)
            self._check_running()
            with translated_errors():
                yield from self._chunks_of(query, is_last=following is None)
            query = following

    @abstractmethod
    def _chunks_of(self, query: Query, is_last: bool) -> Iterator[list[T]]:
        """Yields the chunks of a query, and sets `is_over` before the last one of the last query."""

    def _end_query(self) -> None:
        self._pool.cancel(self._connection)

    def _release(self, cancelled: bool) -> None:
        if cancelled:
            # The server may act on a cancellation as late as in the connection's next statement.
            self._pool.discard(self._connection)
        else:
            self._pool.release(self._connection)


class PostgreSqlRowStream(PostgreSqlStream[T]):
    """Rows of any number and kind, through a server-side cursor.

    Args:
        pool, queries, chunk_row_count: as for `PostgreSqlStream`.
        decode: makes a row of the storage of a row of the database.
    """

    def __init__(
        self, pool: ConnectionPool, queries: Iterable[Query], chunk_row_count: int, decode: Callable[[DatabaseRow], T]
    ) -> None:
        super().__init__(pool, queries, chunk_row_count)
        self._decode = decode

    def _chunks_of(self, query: Query, is_last: bool) -> Iterator[list[T]]:
        rows = self._connection.cursor("rows")
        rows.execute(*query)
        while chunk := rows.fetchmany(self._chunk_row_count):
            self.is_over = is_last and len(chunk) < self._chunk_row_count
            yield [self._decode(row) for row in chunk]
            self._check_running()
            if len(chunk) < self._chunk_row_count:
                break
        # Not in a `finally`: when the iteration is left, the rollback ends the cursor, and the connection may be
        # another read's by then.
        rows.close()


class PostgreSqlDatedStream(PostgreSqlStream[tuple[Id, int]]):
    """Ids and dates in microseconds since 1970, of queries with no more rows than ids.

    Each answer is read whole, in the binary format of COPY: a cursor takes three round trips more, and psycopg2 an
    object for each id and date. That was a third of the time of a look-up of 1,000 contents.
    """

    def _chunks_of(self, query: Query, is_last: bool) -> Iterator[list[tuple[Id, int]]]:
        document = io.BytesIO()
        with self._connection.cursor() as cursor:
            text = cursor.mogrify(*query).decode()
            cursor.copy_expert(f"COPY ({text}) TO STDOUT (FORMAT binary)", document)
        rows = rows_of_dated_document(document.getvalue())
        for start in range(0, len(rows), self._chunk_row_count):
            self.is_over = is_last and start + self._chunk_row_count >= len(rows)
            yield rows[start : start + self._chunk_row_count]
            self._check_running()


# The planner uses the index for a computed array, whatever its length and the statistics; not so for a given one.
_GIVEN_IDS: Final = "ANY (ARRAY(SELECT decode(given, 'hex') FROM unnest(%(ids)s::text[]) AS given))"

_EARLY: Final = "SELECT dst AS revision, path FROM content_in_revision WHERE src = %(content)s"

_IN_DIRECTORIES: Final = """
    SELECT directory_in_revision.dst,
        CASE WHEN directory_in_revision.path IN ('', '.') THEN content_in_directory.path
            ELSE directory_in_revision.path || '/'::bytea || content_in_directory.path END
    FROM content_in_directory JOIN directory_in_revision ON directory_in_revision.src = content_in_directory.dst
    WHERE content_in_directory.src = %(content)s
"""

# Not ordered by origin: a revision has one.
_RESULTS: Final = """
    SELECT found.revision, revision.date, origin.url, found.path
    FROM ({}) AS found
    JOIN revision ON revision.id = found.revision AND revision.date IS NOT NULL
    LEFT JOIN origin ON origin.id = revision.origin
    ORDER BY revision.date, found.revision, found.path
    LIMIT %(limit)s
"""


class PostgreSqlReads(Reads):
    """Makes the stream of each read.

    Args:
        pool: where the streams take their connections from.
        chunk_row_count: the largest number of rows of a chunk.
    """

    def __init__(self, pool: ConnectionPool, chunk_row_count: int) -> None:
        self._pool = pool
        self._chunk_row_count = chunk_row_count

    def dates(self, entity: EntityType, ids: Iterable[Id]) -> PostgreSqlDatedStream:
        text = f"SELECT id, date FROM {entity} WHERE id = {_GIVEN_IDS} AND date IS NOT NULL"
        return PostgreSqlDatedStream(self._pool, _by_ids(text, ids), self._chunk_row_count)

    def revisions(self, ids: Iterable[Id]) -> PostgreSqlRowStream[tuple[Id, RevisionData]]:
        known = "(date IS NOT NULL OR origin IS NOT NULL)"
        text = f"SELECT id, date, origin FROM revision WHERE id = {_GIVEN_IDS} AND {known}"
        return self._stream(_by_ids(text, ids), _revision)

    def origins(self, ids: Iterable[Id]) -> PostgreSqlRowStream[tuple[Id, str]]:
        return self._stream(_by_ids(f"SELECT id, url FROM origin WHERE id = {_GIVEN_IDS}", ids), _origin)

    def relations(
        self, relation: RelationType, ids: Iterable[Id], reverse: bool
    ) -> PostgreSqlRowStream[tuple[Id, RelationData]]:
        text = f"{_rows_of(relation)} WHERE {'dst' if reverse else 'src'} = {_GIVEN_IDS}"
        return self._stream(_by_ids(text, ids), _relation)

    def all_relations(self, relation: RelationType) -> PostgreSqlRowStream[tuple[Id, RelationData]]:
        return self._stream([Query(_rows_of(relation), {})], _relation)

    def all_entities(self, entity: EntityType) -> PostgreSqlRowStream[Id]:
        named = " UNION ".join(f"SELECT {column} AS id FROM {table}" for table, column in ends_of(entity))
        return self._stream([Query(f"SELECT id FROM ({named}) AS named WHERE id IS NOT NULL", {})], _bytes)

    def all_locations(self) -> PostgreSqlRowStream[Path]:
        text = " UNION ".join(f"SELECT path FROM {table}" for table in names_with_paths())
        return self._stream([Query(text, {})], _bytes)

    def first_occurrence(self, content: Id) -> PostgreSqlRowStream[ProvenanceResult]:
        return self._occurrences(_EARLY, content, 1)

    def all_occurrences(self, content: Id, limit: int | None) -> PostgreSqlRowStream[ProvenanceResult]:
        return self._occurrences(f"{_EARLY} UNION {_IN_DIRECTORIES}", content, limit)

    def _occurrences(self, found: str, content: Id, limit: int | None) -> PostgreSqlRowStream[ProvenanceResult]:
        def decode(row: DatabaseRow) -> ProvenanceResult:
            return ProvenanceResult(content, bytes(row[0]), row[1], row[2], bytes(row[3]))

        return self._stream([Query(_RESULTS.format(found), {"content": content, "limit": limit})], decode)

    def _stream(self, queries: Iterable[Query], decode: Callable[[DatabaseRow], T]) -> PostgreSqlRowStream[T]:
        return PostgreSqlRowStream(self._pool, queries, self._chunk_row_count, decode)


def _by_ids(text: str, ids: Iterable[Id]) -> Iterator[Query]:
    remaining = iter(ids)
    while piece := list(islice(remaining, IDS_OF_A_QUERY)):
        yield Query(text, {"ids": array_literal(piece)})


def _rows_of(relation: RelationType) -> str:
    return f"SELECT src, dst, {'path' if relation.has_path else 'NULL::bytea'} FROM {relation}"


def _bytes(row: DatabaseRow) -> bytes:
    return bytes(row[0])


def _origin(row: DatabaseRow) -> tuple[Id, str]:
    return bytes(row[0]), row[1]


def _revision(row: DatabaseRow) -> tuple[Id, RevisionData]:
    return bytes(row[0]), RevisionData(row[1], None if row[2] is None else bytes(row[2]))


def _relation(row: DatabaseRow) -> tuple[Id, RelationData]:
    return bytes(row[0]), RelationData(bytes(row[1]), None if row[2] is None else bytes(row[2]))
