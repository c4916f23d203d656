"""Databases emptied between two tests of a stack: a stack of its own for every test would take minutes."""

from __future__ import annotations

from typing import Any, Final

import psycopg2
from psycopg2 import sql
from pymongo import MongoClient

_KEPT: Final = ("schema_version", "exchange_range", "schema")


def empty_postgresql(dsn: str) -> None:
    """Deletes all rows of a database, but for its version and range counts."""
    connection = psycopg2.connect(dsn)
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename <> ALL (%s)",
            [list(_KEPT)],
        )
        tables = [sql.Identifier(name) for (name,) in cursor.fetchall()]
        cursor.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(tables)))
    connection.close()


def empty_mongodb(url: str) -> None:
    """Deletes all documents of a database, but for its version and range counts."""
    with MongoClient[dict[str, Any]](url) as client:
        database = client.get_default_database()
        for name in set(database.list_collection_names()) - set(_KEPT):
            database[name].delete_many({})
