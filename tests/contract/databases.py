"""Databases that are emptied between two tests: a new stack, or a new database, for every test would take minutes."""

from __future__ import annotations

from contextlib import closing
from typing import Any, Final

import psycopg2
from pymongo import MongoClient

from provgate_storage.postgresql.schema import TABLES

LARGE_COUNT_OF_MONGODB: Final = 2_500
"""Rows of a large call: several of its commands and queries. SecantusDB takes a minute for twenty times as many."""


def empty_postgresql(dsn: str) -> None:
    """Deletes all rows of a database that is set up, but its version and range counts."""
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {', '.join(TABLES)}")


def empty_mongodb(url: str) -> None:
    """Deletes all documents of a database that is set up, but its version and range counts."""
    with MongoClient[dict[str, Any]](url) as client:
        for name in TABLES:
            client.get_default_database()[name].delete_many({})
