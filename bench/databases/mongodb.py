"""A subject's database in MongoDB."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self
from urllib.parse import urlsplit

from pymongo import MongoClient

from bench.databases.database import set_up_like
from bench.writes.expected import Rows
from bench.writes.loads import TABLES
from provgate_storage import EntityType, RelationType
from provgate_storage.rows.rows import LOCATION


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

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def beside(self, name: str) -> Self:
        database = type(self)(urlsplit(self._url)._replace(path=f"/{name}").geturl())
        set_up_like(database, self)
        return database

    def quiet(self) -> None:
        """Does nothing: the server has no background work."""

    def empty(self) -> None:
        for table in TABLES:
            self._database[table].delete_many({})

    def rest(self) -> None:
        """Does nothing: every write is synced."""

    def gather_statistics(self) -> None:
        """Does nothing: there are no statistics."""

    def fill(self, count: int) -> None:
        """Is not measured on MongoDB."""
        raise NotImplementedError

    def sizes_bytes(self) -> dict[str, int]:
        """Is not measured on MongoDB."""
        raise NotImplementedError

    def counts(self) -> dict[str, int]:
        return {table: self._database[table].count_documents({}) for table in TABLES}

    def rows(self, table: str, keys: Collection[bytes] | None) -> Rows:
        key, *others = _FIELDS[table]
        wanted = {} if keys is None else {key: {"$in": [*keys]}}
        found = self._database[table].find(wanted)
        return {(document[key], *(_value(name, document.get(name)) for name in others)) for document in found}


_ENDS: Final = ("src", "dst")
# In the order of the columns of a row; its key first.
_FIELDS: Final[Mapping[str, Sequence[str]]] = {
    EntityType.CONTENT: ("_id", "date"),
    EntityType.DIRECTORY: ("_id", "date"),
    EntityType.REVISION: ("_id", "date", "origin"),
    EntityType.ORIGIN: ("_id", "url"),
    LOCATION: ("path",),
} | {relation: (*_ENDS, "path") if relation.has_path else _ENDS for relation in RelationType}

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _value(field: str, value: Any) -> Any:
    return _EPOCH + timedelta(microseconds=value) if field == "date" and value is not None else value
