"""A PostgreSQL database in trouble: held writes, slow rows, a full disk, and no connection left."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
from psycopg2.errors import DiskFull
from psycopg2.extensions import connection

from provgate_stack.servers.postgresql import PostgreSqlCluster
from tests.support.polling import eventually


@contextmanager
def fresh_database(cluster: PostgreSqlCluster) -> Iterator[str]:
    """Gives the DSN of an empty database, and drops it at the end."""
    name = f"faults_{secrets.token_hex(4)}"
    yield cluster.create_database(name)
    cluster.drop_database(name)


@contextmanager
def session(dsn: str, *, autocommit: bool = False) -> Iterator[connection]:
    """A session of the test's own."""
    opened = psycopg2.connect(dsn)
    try:
        opened.autocommit = autocommit
        yield opened
    finally:
        opened.close()


def execute(dsn: str, statement: str) -> None:
    """Executes statements, and does not wait long for a lock."""
    with session(dsn, autocommit=True) as own, own.cursor() as cursor:
        cursor.execute("SET lock_timeout = '10s'")
        cursor.execute(statement)


def query(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    """Returns the rows of a query."""
    with session(dsn) as own, own.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


@contextmanager
def locked(dsn: str, *tables: str, mode: str = "ACCESS EXCLUSIVE") -> Iterator[None]:
    """Locks tables, as an operator does who changes them."""
    with session(dsn) as own, own.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {', '.join(tables)} IN {mode} MODE")
        yield


def refuse(dsn: str, id: bytes) -> None:
    """Has the database refuse a content that everything before it finds valid."""
    execute(dsn, f"ALTER TABLE content ADD CONSTRAINT no_such_id CHECK (id <> '\\x{id.hex()}')")


def make_rows_slow(dsn: str, seconds: float, condition: str = "true") -> None:
    """Makes every insert of a content row that meets a condition take this long."""
    execute(
        dsn,
        f"""CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN IF {condition} THEN PERFORM pg_sleep({seconds}); END IF; RETURN NEW; END $$;
            CREATE TRIGGER linger BEFORE INSERT ON content FOR EACH ROW EXECUTE FUNCTION linger()""",
    )


class HeldWrites:
    """Writes that wait until they are released. Belongs to one thread.

    Args:
        watcher: a session of the database, not in a transaction.
        holder: the session that holds the writes.
        release: the statement that lets them go on.
    """

    def __init__(self, watcher: connection, holder: connection, release: str) -> None:
        self._watcher = watcher
        self._holder = holder
        self._release = release

    def release(self) -> None:
        """Lets them go on. May be called once."""
        with self._holder.cursor() as cursor:
            cursor.execute(self._release)

    def wait_waiting(self, begin: str, count: int = 1) -> None:
        """Returns when this many statements wait that begin with a word."""
        eventually(lambda: self._waiting_count(begin) >= count, f"{count} x {begin} wait", 60)

    def _waiting_count(self, begin: str) -> int:
        with self._watcher.cursor() as cursor:
            cursor.execute(
                "SELECT query FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()"
            )
            return sum(text.strip().startswith(begin) for (text,) in cursor.fetchall())


@contextmanager
def rows_held(dsn: str, ids: Iterable[bytes]) -> Iterator[HeldWrites]:
    """Holds writes of these contents, until the end of the block at the latest."""
    with session(dsn, autocommit=True) as holder, session(dsn, autocommit=True) as watcher:
        with holder.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("INSERT INTO content (id) SELECT unnest(%s::bytea[])", (list(ids),))
        yield HeldWrites(watcher, holder, "ROLLBACK")


@contextmanager
def commits_held(dsn: str) -> Iterator[HeldWrites]:
    """Holds the COMMIT of transactions that wrote contents, until the end of the block at the latest."""
    with session(dsn, autocommit=True) as holder, session(dsn, autocommit=True) as watcher:
        with holder.cursor() as cursor:
            cursor.execute(
                """CREATE FUNCTION hold_commit() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END $$;
                CREATE CONSTRAINT TRIGGER hold_commit AFTER INSERT OR UPDATE ON content
                    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hold_commit()"""
            )
            cursor.execute("SELECT pg_advisory_lock(1)")
        yield HeldWrites(watcher, holder, "SELECT pg_advisory_unlock(1)")


@contextmanager
def no_connection_left(server_dsn: str, database_dsn: str) -> Iterator[None]:
    """Uses up the connections of a server, and takes those to a database away from the programs."""
    database = database_dsn.rpartition("/")[2]
    opened: list[connection] = []
    try:
        with session(server_dsn, autocommit=True) as own, own.cursor() as cursor:
            deadline = time.monotonic() + 60
            while True:
                with pytest.raises(psycopg2.OperationalError, match="too many clients"):
                    _open_connections(server_dsn, opened)
                cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database,))
                if not cursor.rowcount:
                    break
                assert time.monotonic() < deadline, "the programs keep their connections"
            yield
    finally:
        for each in opened:
            each.close()


def _open_connections(dsn: str, opened: list[connection]) -> None:
    while True:
        opened.append(psycopg2.connect(dsn))


@contextmanager
def database_on_small_disk(path: Path, cluster: PostgreSqlCluster) -> Iterator[str]:
    """Gives the DSN of a database in a tablespace on a tmpfs, which `fill_disk` fills."""
    name = f"faults_{secrets.token_hex(4)}"
    owner = psutil.Process(cluster.pid)
    # An empty database takes 8 MB.
    with tmpfs(path, "48m", owner.uids().real, owner.gids().real), session(cluster.dsn(), autocommit=True) as own:
        cursor = own.cursor()
        cursor.execute(f"CREATE TABLESPACE {name} LOCATION '{path}'")
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE template0 TABLESPACE {name}")
        try:
            yield cluster.dsn(name)
        finally:
            cluster.drop_database(name)
            cursor.execute(f"DROP TABLESPACE IF EXISTS {name}")


def fill_disk(dsn: str) -> None:
    """Takes all pages that are free. `DROP TABLE filler` gives them back."""
    with session(dsn, autocommit=True) as own, own.cursor() as cursor:
        cursor.execute("CREATE TABLE filler (page text) WITH (autovacuum_enabled = off)")
        # Neither compressed nor moved elsewhere: a row takes a page.
        cursor.execute("ALTER TABLE filler ALTER page SET STORAGE PLAIN")
        for page_count in (100, 1):
            try:
                while True:
                    cursor.execute(
                        "INSERT INTO filler SELECT repeat('x', 7000) FROM generate_series(1, %s)", (page_count,)
                    )
            except DiskFull:
                continue


@contextmanager
def tmpfs(path: Path, size: str, uid: int, gid: int) -> Iterator[None]:
    """Mounts a tmpfs on an empty directory. Needs the right to mount, or sudo."""
    _as_root("mount", "-t", "tmpfs", "-o", f"size={size},mode=700,uid={uid},gid={gid}", "tmpfs", str(path))
    try:
        yield
    finally:
        # Lazily: the server may have a file of it open for a moment.
        _as_root("umount", "--lazy", str(path))


def _as_root(*command: str) -> None:
    subprocess.run([*([] if os.geteuid() == 0 else ["sudo", "--non-interactive"]), *command], check=True)
