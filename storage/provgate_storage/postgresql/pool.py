"""A bounded pool of connections.

psycopg2's own pools raise at once when they are exhausted, do not notice a server that was restarted, and roll back on
dead connections; this one waits, looks before it gives a connection out, and drops what is broken.
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
        size: how many there are at most, in use and idle.
        wait_s: how long `take` waits for one, in seconds.
    """

    def __init__(self, connect: Callable[[], connection], size: int, wait_s: float) -> None:
        self._connect = connect
        self._size = size
        self._wait_s = wait_s
        self._free = threading.Semaphore(size)
        self._lock = threading.Lock()
        self._idle: list[connection] = []
        self._closed = False

    def take(self) -> connection:
        """Returns a connection outside a transaction, to be given to `give_back` or `discard`.

        Raises:
            StorageBusyError: all are in use, and none came back in time.
            StorageUnavailableError: no connection can be made, or the pool is closed.
        """
        if not self._free.acquire(timeout=self._wait_s):
            raise StorageBusyError(f"no connection became free within {self._wait_s:g} s: there may be {self._size}")
        try:
            return self._idle_connection() or self._connect()
        except BaseException:
            self._free.release()
            raise

    def give_back(self, taken: connection) -> None:
        """Takes a connection back, rolling back the transaction that it may be in; drops it if it is broken."""
        try:
            if not (_rolled_back(taken) and self._kept(taken)):
                taken.close()
        finally:
            self._free.release()

    def discard(self, taken: connection) -> None:
        """Closes a connection that `take` gave, without a word to the server."""
        try:
            taken.close()
        finally:
            self._free.release()

    def cancel(self, taken: connection) -> None:
        """Ends the statement that a connection in use runs, over a short connection of its own to the server.

        Not by psycopg2's `cancel`, which stops every thread of the program until the server answers.

        Raises:
            StorageError: the server cannot be asked.
        """
        asking = self._connect()
        try:
            with translated_errors(), asking.cursor() as own_cursor:
                own_cursor.execute("SELECT pg_cancel_backend(%s)", (taken.info.backend_pid,))
        finally:
            asking.close()

    @contextmanager
    def transaction(self) -> Iterator[cursor]:
        """Gives a cursor in a transaction that is committed when the block ends, and rolled back when it raises.

        Raises:
            StorageError: what psycopg2 raised within the block or at its end. After a `StorageUnavailableError` it is
                not known whether the transaction was committed.
        """
        taken = self.take()
        try:
            with translated_errors(), taken.cursor() as own_cursor:
                yield own_cursor
                taken.commit()
        except StorageUnavailableError:
            self.discard(taken)
            raise
        except BaseException:
            self.give_back(taken)
            raise
        self.give_back(taken)

    def close(self) -> None:
        """Closes the idle connections at once and the others when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for left in idle:
            left.close()

    def _idle_connection(self) -> connection | None:
        while True:
            with self._lock:
                if self._closed:
                    raise StorageUnavailableError("the storage is closed")
                if not self._idle:
                    return None
                found = self._idle.pop()
            if not found.closed and not _is_readable(found):
                return found
            found.close()

    def _kept(self, taken: connection) -> bool:
        with self._lock:
            if not self._closed:
                self._idle.append(taken)
            return not self._closed


def _is_readable(idle: connection) -> bool:
    # A server that has something to say to an idle connection says that it has ended it.
    poll = select.poll()
    poll.register(idle.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _rolled_back(taken: connection) -> bool:
    """Returns whether a connection is usable, after rolling back the transaction that it is in."""
    if taken.closed:
        return False
    status = taken.info.transaction_status
    if status in (TRANSACTION_STATUS_INTRANS, TRANSACTION_STATUS_INERROR):
        try:
            with translated_errors():
                taken.rollback()
        except StorageError:
            # Whatever it is: a connection that cannot even roll back is not worth a second look.
            return False
        status = taken.info.transaction_status
    # Anything else is a statement that still runs, or a broken connection.
    return status == TRANSACTION_STATUS_IDLE
