"""A read whose rows come in chunks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from psycopg2.extensions import connection

from provgate_storage.errors import StorageError, StorageUnavailableError
from provgate_storage.postgresql.failures import translated_errors
from provgate_storage.postgresql.pool import ConnectionPool
from provgate_storage.postgresql.queries import Query

T = TypeVar("T")


class PostgreSqlRowStream(Generic[T]):
    """The rows of one or several queries in one read-only snapshot, through a server-side cursor.

    It holds a connection from the first chunk to its end or `close`. It is iterated once, by one thread.

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
        self._pool = pool
        self._queries = queries
        self._decode = decode
        self._chunk_row_count = chunk_row_count
        # Held while the connection is cancelled or given up: a connection that is back in its pool may run somebody
        # else's query.
        self._lock = threading.RLock()
        self._connection: connection | None = None
        self._cancelled = False
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[list[T]]:
        """Yields chunks of rows, none of them empty.

        Raises:
            StorageBusyError: no connection became free in time.
            StorageUnavailableError: the connection was lost, a time limit passed, or the stream was cancelled.
            SchemaMismatchError: the database has no such tables.
        """
        try:
            with translated_errors():
                taken = self._opened()
                for query in self._queries:
                    yield from self._chunks(taken, query)
        finally:
            self.close()

    def cancel(self) -> None:
        """Ends the query from any thread, over a short connection of its own to the server.

        The thread that iterates gets `StorageUnavailableError` where it waits or when it asks for the next chunk.
        """
        with self._lock:
            self._cancelled = True
            if self._connection is not None:
                with suppress(StorageError):  # the server cannot be reached: the query's own connection is lost too
                    self._pool.cancel(self._connection)

    def close(self) -> None:
        """Ends the query and gives its connection back. Does nothing the second time."""
        with self._lock:
            self._closed = True
            taken, self._connection = self._connection, None
            if taken is None:
                return
            # The server may act on a cancellation only when the connection runs its next statement.
            give_up = self._pool.discard if self._cancelled else self._pool.give_back
            give_up(taken)

    def _opened(self) -> connection:
        self._check_running()
        taken = self._pool.take()
        with self._lock:
            self._connection = taken
        return taken

    def _chunks(self, taken: connection, query: Query) -> Iterator[list[T]]:
        self._check_running()
        rows = taken.cursor("rows")
        rows.execute(query.text, query.parameters)
        while chunk := rows.fetchmany(self._chunk_row_count):
            yield [self._decode(row) for row in chunk]
            self._check_running()
            if len(chunk) < self._chunk_row_count:
                break
        # Only here: when the iteration was left, the rollback ends the cursor. Closing it by then would be a statement
        # on a connection that is somebody else's.
        rows.close()

    def _check_running(self) -> None:
        if self._cancelled:
            raise StorageUnavailableError("the read was cancelled")
        if self._closed:
            raise StorageUnavailableError("the read was closed")
