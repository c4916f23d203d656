"""The database of a subject: emptied before a run, at rest when it starts, looked into when it is done."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

import psycopg2

from provgate_storage import get_provenance_storage
from provgate_storage.local import LocalStorage
from provgate_storage.postgresql.tables import TABLES

Rows = set[tuple[Any, ...]]


class WrongRowsError(RuntimeError):
    """What is stored after a run is not what was written in it."""


class PostgreSqlDatabase:
    """A database on a server of which the user is a superuser. Not thread-safe.

    Args:
        dsn: of the database.
    """

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._connection = psycopg2.connect(dsn)
        self._connection.autocommit = True

    @property
    def storage_config(self) -> dict[str, Any]:
        """What `get_provenance_storage` takes."""
        return {"cls": "postgresql", "db": self.dsn}

    def set_up_like(self, other: PostgreSqlDatabase) -> None:
        """Creates the schema, with the range counts of another database."""
        with _local(other.storage_config) as theirs, _local(self.storage_config) as ours:
            ours.setup(theirs.recorded_range_counts() or {})

    def keep_vacuum_off(self) -> None:
        """Turns autovacuum off in the server: its work would be charged to whichever subject runs at that moment."""
        self._execute("ALTER SYSTEM SET autovacuum = off")
        self._execute("SELECT pg_reload_conf()")

    def empty(self) -> None:
        """Empties all tables."""
        self._execute(f"TRUNCATE {', '.join(TABLES)}")

    def rest(self) -> None:
        """Writes everything out, so that no checkpoint falls into a run."""
        self._execute("CHECKPOINT")

    def check_counts(self, expected: Mapping[str, Rows]) -> None:
        """Compares the number of rows of every table.

        Raises:
            WrongRowsError: it is another one.
        """
        for table in TABLES:
            (count,) = self._fetch(f"SELECT count(*) FROM {table}")[0]
            _same(table, count, len(expected.get(table, ())))

    def check_rows(self, expected: Mapping[str, Rows]) -> None:
        """Compares all rows of every table.

        Raises:
            WrongRowsError: one is missing, too many, or another one.
        """
        for name, table in TABLES.items():
            columns = ", ".join(column for column, _ in table.columns)
            found = {tuple(map(_value, row)) for row in self._fetch(f"SELECT {columns} FROM {name}")}
            wanted = expected.get(name, set())
            if found != wanted:
                raise WrongRowsError(f"{name}: {len(found ^ wanted)} rows are missing or should not be there")

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def _execute(self, statement: str) -> None:
        with closing(self._connection.cursor()) as cursor:
            cursor.execute(statement)

    def _fetch(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(self._connection.cursor()) as cursor:
            cursor.execute(statement)
            return cursor.fetchall()


def _local(config: Mapping[str, Any]) -> LocalStorage:
    storage = get_provenance_storage(**config)
    if not isinstance(storage, LocalStorage):
        raise TypeError(f"{config['cls']} is no local storage")
    return storage


def _value(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview) else value


def _same(table: str, count: int, expected: int) -> None:
    if count != expected:
        raise WrongRowsError(f"{table} holds {count} rows and not {expected}")
