"""A subject's database in PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing
from typing import Any, Self

import psycopg2
from psycopg2.extensions import make_dsn

from bench.databases.database import set_up_like
from bench.writes.expected import Rows
from provgate_stack.servers.postgresql import create_database
from provgate_storage.postgresql.schema import TABLES


class PostgreSqlDatabase:
    """A `Database` on a PostgreSQL server of which the user is a superuser.

    Args:
        dsn: of the database.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection = psycopg2.connect(dsn)
        self._connection.autocommit = True

    @property
    def storage_config(self) -> dict[str, Any]:
        return {"cls": "postgresql", "db": self._dsn}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def beside(self, name: str) -> Self:
        create_database(self._dsn, name)
        database = type(self)(make_dsn(self._dsn, dbname=name))
        set_up_like(database, self)
        return database

    def quiet(self) -> None:
        self._execute("ALTER SYSTEM SET autovacuum = off")
        self._execute("SELECT pg_reload_conf()")

    def empty(self) -> None:
        self._execute(f"TRUNCATE {', '.join(TABLES)}")

    def rest(self) -> None:
        self._execute("CHECKPOINT")

    def gather_statistics(self) -> None:
        self._execute("ANALYZE")

    def fill(self, count: int) -> None:
        numbers = f"generate_series(1, {count}) number"
        id_of = "substr(sha256(convert_to('{} ' || {}, 'UTF8')), 1, 20)"
        content, revision = id_of.format("content", "number"), id_of.format("revision", "number / 100")
        path = "convert_to('src/library_' || number % 7 || '/component_' || number % 100 || '.c', 'UTF8')"
        self._execute(
            f"INSERT INTO content SELECT {content}, '2005-04-07Z'::timestamptz + number * interval '1s' FROM {numbers}"
        )
        self._execute(f"INSERT INTO content_in_revision SELECT {content}, {revision}, {path} FROM {numbers}")

    def counts(self) -> dict[str, int]:
        return {table: self._fetch(f"SELECT count(*) FROM {table}")[0][0] for table in TABLES}

    def sizes_bytes(self) -> dict[str, int]:
        filled = [table for table, count in self.counts().items() if count]
        return {table: self._fetch(f"SELECT pg_total_relation_size('{table}')")[0][0] for table in filled}

    def rows(self, table: str, keys: Collection[bytes] | None) -> Rows:
        columns = [column for column, _ in TABLES[table].columns]
        select = f"SELECT {', '.join(columns)} FROM {table}"
        found = self._fetch(select) if keys is None else self._fetch(f"{select} WHERE {columns[0]} = ANY(%s)", [*keys])
        return {tuple(map(_value, row)) for row in found}

    def _execute(self, statement: str) -> None:
        with closing(self._connection.cursor()) as cursor:
            cursor.execute(statement)

    def _fetch(self, statement: str, keys: list[bytes] | None = None) -> list[tuple[Any, ...]]:
        with closing(self._connection.cursor()) as cursor:
            cursor.execute(statement, None if keys is None else (keys,))
            return cursor.fetchall()


def _value(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview) else value
