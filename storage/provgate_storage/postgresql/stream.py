"""A read whose rows come in chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from psycopg2.extensions import connection

from provgate_storage.postgresql.failures import translated_errors
from provgate_storage.postgresql.pool import ConnectionPool
from provgate_storage.postgresql.queries import Query
from provgate_storage.stream import CancellableStream

T = TypeVar("T")


class PostgreSqlRowStream(CancellableStream[T, connection]):
    """The rows of one or several queries in one read-only snapshot, through a server-side cursor.

    Args:
        pool: where the connection comes from.
        queries: whose rows follow one another.
        decode: makes a row of ours of one of the database's.
        chunk_row_count: rows of a chunk, at most.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        queries: Iterable[Query],
        decode: Callable[[tuple[Any, ...]], T],
        chunk_row_count: int,
    ) -> None:
        super().__init__()
        self._pool = pool
        self._queries = queries
        self._decode = decode
        self._chunk_row_count = chunk_row_count

    def _take(self) -> connection:
        return self._pool.take()

    def _chunks(self, taken: connection) -> Iterator[list[T]]:
        remaining = iter(self._queries)
        query = next(remaining, None)
        while query is not None:
            following = next(remaining, None)
            with translated_errors():
                yield from self._chunks_of(taken, query, is_last=following is None)
            query = following

    def _end(self, held: connection) -> None:
        self._pool.cancel(held)

    def _give_back(self, held: connection, cancelled: bool) -> None:
        # The server may act on a cancellation only when the connection runs its next statement.
        give_up = self._pool.discard if cancelled else self._pool.give_back
        give_up(held)

    def _chunks_of(self, taken: connection, query: Query, is_last: bool) -> Iterator[list[T]]:
        self.check_running()
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
