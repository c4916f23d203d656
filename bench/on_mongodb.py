"""A subject's database in MongoDB."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from pymongo import MongoClient

from bench.database import set_up_like
from bench.expected import Rows, WrongRowsError
from bench.loads import TABLES


class MongoDbDatabase:
    """A `Database` on a MongoDB server.

    Args:
        url: of the database.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: MongoClient[dict[str, Any]] = MongoClient(url)
        self._database = self._client[urlsplit(url).path.removeprefix("/")]

    @property
    def storage_config(self) -> dict[str, Any]:
        return {"cls": "mongodb", "db": self._url}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()

    def beside(self, name: str) -> Self:
        database = type(self)(urlsplit(self._url)._replace(path=f"/{name}").geturl())
        set_up_like(database, self)
        return database

    def quiet(self) -> None:
        """Does nothing: the server has no such work."""

    def empty(self) -> None:
        for table in TABLES:
            self._database[table].delete_many({})

    def rest(self) -> None:
        """Does nothing: every write is synced."""

    def gather_statistics(self) -> None:
        """Does nothing: there are none."""

    def fill(self, count: int) -> None:
        """Is not measured on MongoDB."""
        raise NotImplementedError

    def sizes_bytes(self) -> dict[str, int]:
        """Is not measured on MongoDB."""
        raise NotImplementedError

    def counts(self) -> dict[str, int]:
        return {table: self._database[table].count_documents({}) for table in TABLES}

    def check_rows(self, expected: Mapping[str, Rows]) -> None:
        """Compares the numbers of rows alone."""
        for table, count in self.counts().items():
            if count != len(expected.get(table, ())):
                raise WrongRowsError(f"{table} holds {count} rows and not {len(expected.get(table, ()))}")
