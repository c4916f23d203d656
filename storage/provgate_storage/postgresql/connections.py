"""A bounded pool of connections.

psycopg2's own pools raise at once when they are exhausted, do not notice a server that was restarted, and roll back on
dead connections; this one waits, looks before it gives a connection out, and drops what is broken.
"""

from __future__ import annotations

import math
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg2
from psycopg2.extensions import (
    ISOLATION_LEVEL_READ_COMMITTED,
    ISOLATION_LEVEL_REPEATABLE_READ,
    TRANSACTION_STATUS_IDLE,
    TRANSACTION_STATUS_INERROR,
    TRANSACTION_STATUS_INTRANS,
    connection,
    cursor,
    make_dsn,
)
from psycopg2.extensions import parse_dsn as parse

from provgate_storage.errors import StorageBusyError, StorageError, StorageUnavailableError
from provgate_storage.postgresql.failures import translated_errors
from provgate_storage.postgresql.settings import PostgreSqlSettings, connection_string

# Ends calls that a server does not answer.
#
# psycopg2 waits for an answer for as long as its connection is up. TCP ends a connection to a host that is gone, but
# not one to a server that is suspended, or to a proxy that keeps connections up and hands nothing on; and the time
# limits of a session are the server's, so that they are of no use then.


class Watchdog:
    """Calls back when a block takes too long. Thread-safe; its one thread starts with the first block."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watched: dict[object, tuple[float, Callable[[], None]]] = {}
        self._wakes_at = math.inf
        self._thread: threading.Thread | None = None

    @contextmanager
    def watch(self, timeout_s: float, expire: Callable[[], None]) -> Iterator[None]:
        """Calls `expire` on another thread, once, if the block is not left after `timeout_s`, and before it is left."""
        key = object()
        self._add(key, time.monotonic() + timeout_s, expire)
        try:
            yield
        finally:
            with self._changed:
                self._watched.pop(key, None)

    def _add(self, key: object, deadline: float, expire: Callable[[], None]) -> None:
        with self._changed:
            self._watched[key] = (deadline, expire)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="storage-watchdog", daemon=True)
                self._thread.start()
            # Most blocks are left long before: the thread does not hear of them.
            if deadline < self._wakes_at:
                self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while True:
                self._expire_due(time.monotonic())
                self._wakes_at = min((deadline for deadline, _ in self._watched.values()), default=math.inf)
                wait_s = self._wakes_at - time.monotonic()
                self._changed.wait(None if math.isinf(wait_s) else max(0.0, wait_s))

    def _expire_due(self, now: float) -> None:
        for key, (deadline, expire) in list(self._watched.items()):
            if deadline <= now:
                del self._watched[key]
                expire()


# One thread for all connections of a process.
_WATCHDOG: Final = Watchdog()


class WatchedConnection(connection):
    """A connection that is shut down when the server does not answer: the call that waits raises `OperationalError`.

    Attributes:
        answer_timeout_s: how long the server may take for each answer.
    """

    answer_timeout_s: float = math.inf

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Bounds what is done in the block."""
        with _WATCHDOG.watch(self.answer_timeout_s, self._shut_down):
            yield

    def commit(self) -> None:
        """`connection.commit`, bounded."""
        with self.watched():
            super().commit()

    def rollback(self) -> None:
        """`connection.rollback`, bounded."""
        with self.watched():
            super().rollback()

    def _shut_down(self) -> None:
        # Of a duplicate: libpq closes its own, in the thread that waits.
        with suppress(psycopg2.Error, OSError), socket.socket(fileno=os.dup(self.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)


class WatchedCursor(cursor):
    """A cursor of a `WatchedConnection`."""

    connection: WatchedConnection

    def execute(self, query: Any, parameters: Any = None) -> None:
        """`cursor.execute`, bounded."""
        with self.connection.watched():
            super().execute(query, parameters)

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """`cursor.fetchmany`, bounded: a named cursor asks the server."""
        with self.connection.watched():
            return super().fetchmany(size)

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        """`cursor.copy_expert`, bounded."""
        with self.connection.watched():
            super().copy_expert(sql, file, size)

    def close(self) -> None:
        """`cursor.close`, bounded: a named cursor tells the server."""
        with self.connection.watched():
            super().close()


@dataclass(frozen=True, slots=True)
class Session:
    """What the connections of one kind of use have in common.

    Attributes:
        dsn: where the database is, the parameters of the session included.
        readonly: whether transactions are read-only, of one snapshot each; else they read what is committed.
        answer_timeout_s: after so many seconds without an answer the server is given up: it ends a statement sooner.
        Infinite where no statement has a limit; TCP still finds out that the host is gone.
    """

    dsn: str = field(repr=False)
    readonly: bool
    answer_timeout_s: float


def setup_session(settings: PostgreSqlSettings) -> Session:
    """Returns the session of set-up: an index of a large table takes as long as it takes."""
    parameters = _lock_limits(settings) | {"statement_timeout": "0"}
    return Session(_dsn(settings, "set-up", parameters), readonly=False, answer_timeout_s=math.inf)


def write_session(settings: PostgreSqlSettings) -> Session:
    """Returns the session of writes."""
    parameters = _lock_limits(settings) | {"statement_timeout": _milliseconds(settings.write_timeout_s)}
    return _session(settings, "write", settings.write_timeout_s, parameters, readonly=False)


def read_session(settings: PostgreSqlSettings) -> Session:
    """Returns the session of reads by id."""
    return _reading(settings, "read", settings.read_timeout_s, settings.read_timeout_s)


def stream_session(settings: PostgreSqlSettings) -> Session:
    """Returns the session of streamed reads."""
    return _reading(settings, "stream", settings.stream_timeout_s, settings.stream_idle_timeout_s)


def connect(session: Session) -> connection:
    """Returns a new connection.

    Raises:
        StorageUnavailableError: the server cannot be reached or refuses the connection.
    """
    level = ISOLATION_LEVEL_REPEATABLE_READ if session.readonly else ISOLATION_LEVEL_READ_COMMITTED
    with translated_errors():
        made = psycopg2.connect(session.dsn, connection_factory=WatchedConnection, cursor_factory=WatchedCursor)
        try:
            made.answer_timeout_s = session.answer_timeout_s
            made.set_session(isolation_level=level, readonly=session.readonly, autocommit=False)
        except BaseException:
            made.close()
            raise
    return made


def _lock_limits(settings: PostgreSqlSettings) -> dict[str, str]:
    return {
        "lock_timeout": _milliseconds(settings.lock_timeout_s),
        # A program that is stopped inside a transaction holds its locks no longer than another one waits for them.
        "idle_in_transaction_session_timeout": _milliseconds(settings.lock_timeout_s),
    }


def _reading(settings: PostgreSqlSettings, use: str, timeout_s: float, idle_timeout_s: float) -> Session:
    parameters = {
        "statement_timeout": _milliseconds(timeout_s),
        "idle_in_transaction_session_timeout": _milliseconds(idle_timeout_s),
        # Every row of a cursor is read.
        "cursor_tuple_fraction": "1",
        # Every join starts at one content and follows indexes. After a first load there are no statistics yet, and the
        # planner would rather hash a whole table.
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
    }
    return _session(settings, use, timeout_s, parameters, readonly=True)


def _session(
    settings: PostgreSqlSettings, use: str, timeout_s: float, parameters: dict[str, str], *, readonly: bool
) -> Session:
    return Session(_dsn(settings, use, parameters), readonly, timeout_s + settings.tcp_timeout_s)


def _dsn(settings: PostgreSqlSettings, use: str, parameters: dict[str, str]) -> str:
    base = connection_string(settings)
    given = parse(base)
    name = given.get("application_name") or settings.application_name
    every = {"TimeZone": "UTC", "jit": "off", "client_min_messages": "warning", **parameters}
    options = " ".join([given.get("options", ""), *(f"-c {key}={value}" for key, value in every.items())])
    return make_dsn(base, application_name=f"{name} {use}", options=options.strip())


def _milliseconds(duration_s: float) -> str:
    # 0 would mean no limit.
    return str(max(1, round(duration_s * 1000)))


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
