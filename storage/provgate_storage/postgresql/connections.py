"""Connections: one kind of session for each use, and a watchdog for servers that stop to answer.

psycopg2 waits for an answer while its connection is up. TCP ends a connection to a host that is gone, but not one to a
suspended server, or to a proxy that keeps its connections up and forwards nothing; the time limits of a session do not
help then, since the server keeps them.
"""

# ruff: noqa: D102 - the watched methods are those of psycopg2, with a time limit

from __future__ import annotations

import math
import os
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
    connection,
    cursor,
    make_dsn,
    parse_dsn,
)

from provgate_storage.postgresql.failures import translated_errors
from provgate_storage.postgresql.settings import PostgreSqlSettings, connection_string


class Watchdog:
    """Reports blocks that take too long. Thread-safe; its one thread starts with the first block."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watched: dict[object, tuple[float, Callable[[], None]]] = {}
        self._wakes_at = math.inf
        self._thread: threading.Thread | None = None

    @contextmanager
    def watch(self, timeout_s: float, expire: Callable[[], None]) -> Iterator[None]:
        """Calls `expire` once, on another thread, if the block takes longer than `timeout_s`."""
        key, deadline = object(), time.monotonic() + timeout_s
        with self._changed:
            self._watched[key] = (deadline, expire)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="storage-watchdog", daemon=True)
                self._thread.start()
            # Most blocks end long before: they do not wake the thread.
            if deadline < self._wakes_at:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._watched.pop(key, None)

    def _run(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for key, (deadline, expire) in list(self._watched.items()):
                    if deadline <= now:
                        del self._watched[key]
                        expire()
                self._wakes_at = min((deadline for deadline, _ in self._watched.values()), default=math.inf)
                self._changed.wait(None if math.isinf(self._wakes_at) else max(0.0, self._wakes_at - time.monotonic()))


# One thread for all connections of a process.
_WATCHDOG: Final = Watchdog()


class WatchedConnection(connection):
    """A connection that is shut down if the server does not answer: the waiting call raises `OperationalError`.

    Attributes:
        answer_timeout_s: how long the server may take for each answer.
    """

    answer_timeout_s: float = math.inf

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Limits the time of the block."""
        with _WATCHDOG.watch(self.answer_timeout_s, self._shut_down):
            yield

    def commit(self) -> None:
        with self.watched():
            super().commit()

    def rollback(self) -> None:
        with self.watched():
            super().rollback()

    def _shut_down(self) -> None:
        # On a duplicate of the descriptor: libpq closes its own, in the thread that waits.
        with suppress(psycopg2.Error, OSError), socket.socket(fileno=os.dup(self.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)


class WatchedCursor(cursor):
    """A cursor of a `WatchedConnection`. A named cursor asks the server in `fetchmany` and `close` too."""

    connection: WatchedConnection

    def execute(self, query: Any, parameters: Any = None) -> None:
        with self.connection.watched():
            super().execute(query, parameters)

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        with self.connection.watched():
            return super().fetchmany(size)

    def copy_expert(self, sql: Any, file: Any, size: int = 8192) -> None:
        with self.connection.watched():
            super().copy_expert(sql, file, size)

    def close(self) -> None:
        with self.connection.watched():
            super().close()


@dataclass(frozen=True, slots=True)
class Session:
    """The parameters of the connections of one use.

    Attributes:
        dsn: where the database is, with the parameters of the session.
        readonly: whether transactions are read-only, each of one snapshot; else they read what is committed.
        answer_timeout_s: the watchdog's limit for one answer; the server ends a statement earlier. Infinite where
            statements have no limit; TCP still detects that the host is gone.
    """

    dsn: str = field(repr=False)
    readonly: bool
    answer_timeout_s: float


def setup_session(settings: PostgreSqlSettings) -> Session:
    """Returns the session of set-up, without a time limit: it may build an index of a large table."""
    return _session(settings, "set-up", None, _lock_limits(settings), readonly=False)


def write_session(settings: PostgreSqlSettings) -> Session:
    """Returns the session of writes."""
    return _session(settings, "write", settings.write_timeout_s, _lock_limits(settings), readonly=False)


def read_session(settings: PostgreSqlSettings) -> Session:
    """Returns the session of reads by id."""
    parameters = _read_parameters(settings.read_timeout_s)
    return _session(settings, "read", settings.read_timeout_s, parameters, readonly=True)


def stream_session(settings: PostgreSqlSettings) -> Session:
    """Returns the session of streamed reads."""
    parameters = _read_parameters(settings.stream_idle_timeout_s)
    return _session(settings, "stream", settings.stream_timeout_s, parameters, readonly=True)


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
    limit = _milliseconds(settings.lock_timeout_s)
    # A program that is suspended inside a transaction holds its locks no longer than others wait for them.
    return {"lock_timeout": limit, "idle_in_transaction_session_timeout": limit}


def _read_parameters(idle_timeout_s: float) -> dict[str, str]:
    return {
        "idle_in_transaction_session_timeout": _milliseconds(idle_timeout_s),
        # Every row of a cursor is read.
        "cursor_tuple_fraction": "1",
        # Every join starts at one content and follows indexes. After a first load there are no statistics yet, and the
        # planner would rather hash a whole table.
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
    }


def _session(
    settings: PostgreSqlSettings, use: str, timeout_s: float | None, parameters: dict[str, str], *, readonly: bool
) -> Session:
    base = connection_string(settings)
    given = parse_dsn(base)
    name = given.get("application_name") or settings.application_name
    every = {
        "TimeZone": "UTC",
        "jit": "off",
        "client_min_messages": "warning",
        "statement_timeout": "0" if timeout_s is None else _milliseconds(timeout_s),
        **parameters,
    }
    options = " ".join([given.get("options", ""), *(f"-c {key}={value}" for key, value in every.items())])
    dsn = make_dsn(base, application_name=f"{name} {use}", options=options.strip())
    return Session(dsn, readonly, math.inf if timeout_s is None else timeout_s + settings.tcp_timeout_s)


def _milliseconds(duration_s: float) -> str:
    # 0 would mean no limit.
    return str(max(1, round(duration_s * 1000)))
