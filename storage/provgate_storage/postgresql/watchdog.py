"""Ends calls that a server does not answer.

psycopg2 waits for an answer for as long as its connection is up. TCP ends a connection to a host that is gone, but not
one to a server that is suspended, or to a proxy that keeps connections up and hands nothing on; and the time limits of
a session are the server's, so that they are of no use then.
"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg2
from psycopg2.extensions import connection, cursor


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
