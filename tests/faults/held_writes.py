"""Writes that PostgreSQL holds for as long as a test likes, at the row that they write or at their COMMIT."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import psycopg2
from psycopg2.extensions import connection

from tests.support.polling import eventually

_HELD_S = 30.0

# Waits for the advisory lock of whoever holds commits, when the transaction that wrote the row commits.
_HOLD_COMMITS = """
    CREATE FUNCTION hold_commit() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER hold_commit AFTER INSERT OR UPDATE ON content
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hold_commit()"""

_WAITING = """
    SELECT query FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()"""


class HeldWrites:
    """The writes that wait. Belongs to one thread.

    Args:
        watcher: a connection to the database, not in a transaction.
        holder: another one, which holds the writes.
        release: the statement with which it lets them go on.
    """

    def __init__(self, watcher: connection, holder: connection, release: str) -> None:
        self._watcher = watcher
        self._holder = holder
        self._release = release

    def release(self) -> None:
        """Lets them go on. Once."""
        with self._holder.cursor() as cursor:
            cursor.execute(self._release)

    def wait_waiting(self, begin: str, count: int = 1) -> None:
        """Returns when so many statements wait that begin so."""
        eventually(lambda: self._waiting_count(begin) >= count, f"{count} x {begin} wait", _HELD_S)

    def _waiting_count(self, begin: str) -> int:
        with self._watcher.cursor() as cursor:
            cursor.execute(_WAITING)
            return sum(query.strip().startswith(begin) for (query,) in cursor.fetchall())


@contextmanager
def rows_held(dsn: str, ids: Iterable[bytes]) -> Iterator[HeldWrites]:
    """Has whoever writes one of these contents wait, until the end of the block at the latest."""
    with _connected(dsn) as holder, _connected(dsn) as watcher:
        with holder.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("INSERT INTO content (id) SELECT unnest(%s::bytea[])", (list(ids),))
        yield HeldWrites(watcher, holder, "ROLLBACK")


@contextmanager
def commits_held(dsn: str) -> Iterator[HeldWrites]:
    """Has whoever wrote contents wait at COMMIT, until the end of the block at the latest. Once for each database."""
    with _connected(dsn) as holder, _connected(dsn) as watcher:
        with holder.cursor() as cursor:
            cursor.execute(_HOLD_COMMITS)
            cursor.execute("SELECT pg_advisory_lock(1)")
        yield HeldWrites(watcher, holder, "SELECT pg_advisory_unlock(1)")


@contextmanager
def _connected(dsn: str) -> Iterator[connection]:
    made = psycopg2.connect(dsn)
    try:
        made.autocommit = True
        yield made
    finally:
        made.close()
