"""A database on a disk that a test can fill."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil
import psycopg2
from psycopg2.errors import DiskFull
from psycopg2.extensions import cursor

from provgate_stack.servers.postgresql import PostgreSqlCluster

# An empty database takes 8 MB.
_SIZE: Final = "48m"


class SmallDisk:
    """A database in a tablespace on a tmpfs of its own. A context manager; needs the right to mount, or sudo for it.

    Args:
        path: an empty directory, to be mounted on.
        cluster: whose database it is.
        name: of database and tablespace.

    Attributes:
        dsn: of the database.
    """

    def __init__(self, path: Path, cluster: PostgreSqlCluster, name: str) -> None:
        self.dsn = cluster.dsn(name)
        self._path = path
        self._cluster = cluster
        self._name = name

    def __enter__(self) -> Self:
        owner = psutil.Process(self._cluster.pid)
        _mount(self._path, _SIZE, owner.uids().real, owner.gids().real)
        with _cursor(self._cluster.dsn()) as own:
            own.execute(f"CREATE TABLESPACE {self._name} LOCATION '{self._path}'")
            own.execute(f"CREATE DATABASE {self._name} TEMPLATE template0 TABLESPACE {self._name}")
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._cluster.drop_database(self._name)
            with _cursor(self._cluster.dsn()) as own:
                own.execute(f"DROP TABLESPACE IF EXISTS {self._name}")
        finally:
            _unmount(self._path)

    def fill(self) -> None:
        """Takes all that is left, to the last page."""
        with _cursor(self.dsn) as own:
            own.execute("CREATE TABLE filler (page text) WITH (autovacuum_enabled = off)")
            # Neither compressed nor moved elsewhere: a row takes a page.
            own.execute("ALTER TABLE filler ALTER page SET STORAGE PLAIN")
            for page_count in (100, 1):
                _insert_until_full(own, page_count)

    def make_room(self) -> None:
        """Gives back what `fill` took."""
        with _cursor(self.dsn) as own:
            own.execute("DROP TABLE filler")


def _insert_until_full(own: cursor, page_count: int) -> None:
    try:
        while True:
            own.execute("INSERT INTO filler SELECT repeat('x', 7000) FROM generate_series(1, %s)", (page_count,))
    except DiskFull:
        return


@contextmanager
def _cursor(dsn: str) -> Iterator[cursor]:
    opened = psycopg2.connect(dsn)
    opened.autocommit = True
    try:
        with opened.cursor() as own:
            yield own
    finally:
        opened.close()


@contextmanager
def small_tmpfs(path: Path, size: str) -> Iterator[None]:
    """Mounts a tmpfs of our own on an empty directory, of so many bytes (`64m`), for the block."""
    _mount(path, size, os.getuid(), os.getgid())
    try:
        yield
    finally:
        _unmount(path)


def _mount(path: Path, size: str, uid: int, gid: int) -> None:
    _as_root("mount", "-t", "tmpfs", "-o", f"size={size},mode=700,uid={uid},gid={gid}", "tmpfs", str(path))


def _unmount(path: Path) -> None:
    # Lazily: the server may have a file of it open for a moment.
    _as_root("umount", "--lazy", str(path))


def _as_root(*command: str) -> None:
    subprocess.run([*([] if os.geteuid() == 0 else ["sudo", "--non-interactive"]), *command], check=True)
