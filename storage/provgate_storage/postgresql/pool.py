"""A bounded pool of connections.

psycopg2's own pools raise at once when they are exhausted, do not notice that a server was restarted, and roll back on
dead connections. This one waits, checks a connection before use, and drops broken ones.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from psycopg2.extensions import (
    TRANSACTION_STATUS_IDLE,
    TRANSACTION_STATUS_INERROR,
    TRANSACTION_STATUS_INTRANS,
    connection,
    cursor,
)

from provgate_storage.errors import StorageBusyError, StorageError, StorageUnavailableError
from provgate_storage.postgresql.failures import translated_errors


class ConnectionPool:
    """At most `size` connections, made when they are needed. Thread-safe.

    Args:
        connect: makes a connection.
        size: the largest number of connections, in use and idle.
        wait_s: how long `acquire` waits for a connection, in seconds.
    """

    def __init__(self, connect: Callable[[], connection], size: int, wait_s: float) -> None:
        self._connect = connect
        self._size = size
        self._wait_s = wait_s
        self._free = threading.Semaphore(size)
        self._lock = threading.Lock()
        self._idle: list[connection] = []
        self._closed = False

    def acquire(self) -> connection:
        """Returns a connection outside a transaction. The caller passes it to `release` or `discard`.

        Raises:
            StorageBusyError: all connections are in use, and none came back in time.
            StorageUnavailableError: no connection can be made, or the pool is closed.
        """
        if not self._free.acquire(timeout=self._wait_s):
            raise StorageBusyError(f"no connection became free within {self._wait_s:g} s; the limit is {self._size}")
        try:
            return self._usable_idle() or self._connect()
        except BaseException:
            self._free.release()
            raise

    def release(self, acquired: connection) -> None:
        """Takes a connection back after rolling back its transaction, if any; closes it if it is broken."""
        try:
            keep = _rolled_back(acquired)
            with self._lock:
                keep = keep and not self._closed
                if keep:
                    self._idle.append(acquired)
            if not keep:
                acquired.close()
        finally:
            self._free.release()

    def discard(self, acquired: connection) -> None:
        """Closes a connection that `acquire` gave, without a round trip to the server."""
        try:
            acquired.close()
        finally:
            self._free.release()

    def cancel(self, acquired: connection) -> None:
        """Ends the statement that a connection in use runs, over a short connection of its own to the server.

        Not by psycopg2's `cancel`, which stops every thread of the program until the server answers.

        Raises:
            StorageError: the server cannot be asked.
        """
        own = self._connect()
        try:
            with translated_errors(), own.cursor() as own_cursor:
                own_cursor.execute("SELECT pg_cancel_backend(%s)", (acquired.info.backend_pid,))
        finally:
            own.close()

    @contextmanager
    def transaction(self) -> Iterator[cursor]:
        """Gives a cursor in a transaction that is committed when the block ends, and rolled back when it raises.

        Raises:
            StorageError: what psycopg2 raised within the block or at its end. After a `StorageUnavailableError` it is
                not known whether the transaction was committed.
        """
        acquired = self.acquire()
        try:
            with translated_errors(), acquired.cursor() as own_cursor:
                yield own_cursor
                acquired.commit()
        except StorageUnavailableError:
            self.discard(acquired)
            raise
        except BaseException:
            self.release(acquired)
            raise
        self.release(acquired)

    def close(self) -> None:
        """Closes the idle connections at once and the others when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for left in idle:
            left.close()

    def _usable_idle(self) -> connection | None:
        while True:
            with self._lock:
                if self._closed:
                    raise StorageUnavailableError("the storage is closed")
                if not self._idle:
                    return None
                found = self._idle.pop()
            if not found.closed:
                # A server writes to an idle connection only to say that it has ended it.
                poll = select.poll()
                poll.register(found.fileno(), select.POLLIN)
                if not poll.poll(0):
                    return found
            found.close()


def _rolled_back(acquired: connection) -> bool:
    """Rolls back the transaction of a connection, and returns whether the connection is usable."""
    if acquired.closed:
        return False
    if acquired.info.transaction_status in (TRANSACTION_STATUS_INTRANS, TRANSACTION_STATUS_INERROR):
        try:
            with translated_errors():
                acquired.rollback()
        except StorageError:
            return False
    # Anything else is a statement that still runs, or a broken connection.
    return acquired.info.transaction_status == TRANSACTION_STATUS_IDLE
