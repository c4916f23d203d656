"""The provenance index in MongoDB."""

# ruff: noqa: D102 - `LocalStorage` documents the methods

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pymongo
from pymongo.errors import NetworkTimeout

from provgate_storage.database.local import LocalStorage, StorageFacts
from provgate_storage.errors import StorageTimeoutError, StorageUnavailableError
from provgate_storage.mongodb import inspection, schema
from provgate_storage.mongodb.connection import Connection
from provgate_storage.mongodb.failures import translated_errors
from provgate_storage.mongodb.reads import MongoDbReads
from provgate_storage.mongodb.settings import MongoDbSettings, parse_settings
from provgate_storage.mongodb.writes import write
from provgate_storage.rows.rows import Row


class ProvenanceStorageMongoDb(LocalStorage):
    """A `LocalStorage` over a MongoDB database, 5.1 or newer.

    The database belongs to a replica set (one member is enough), a sharded cluster, or a standalone server, which has
    no snapshots: a read may see what is written while it runs.

    Thread-safe. Writes, reads by id and streamed reads have limits of their own and never wait for one another. Each
    row of a write is merged by itself; a write that raises may have stored some of its rows, and is repeated as a
    whole. Only writes and `setup` need more than the role `read`. After `close`, running calls raise
    `StorageUnavailableError`.

    Args:
        **kwargs: the fields of `MongoDbSettings`.

    Raises:
        ConfigurationError: an argument is invalid.
    """

    settings_type: ClassVar[type[MongoDbSettings]] = MongoDbSettings
    """The type of `**kwargs`."""

    def __init__(self, **kwargs: Any) -> None:
        self._settings = parse_settings(kwargs)
        self._lock = threading.Lock()
        self._opened: Connection | None = None

    def open(self) -> None:
        with self._lock:
            if self._opened is None:
                self._opened = Connection(self._settings)

    def close(self) -> None:
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def setup(self, range_counts: Mapping[str, int]) -> None:
        with translated_errors(), self._connection.setting_up() as database:
            schema.set_up(database, range_counts)

    def replace_range_counts(self, range_counts: Mapping[str, int]) -> None:
        with translated_errors():
            schema.replace_range_counts(self._connection.written, range_counts)

    def check(self, range_counts: Mapping[str, int] | None) -> None:
        with translated_errors():
            schema.check(self._connection.database, range_counts)

    def recorded_range_counts(self) -> dict[str, int] | None:
        with translated_errors():
            return schema.recorded_range_counts(self._connection.database)

    def probe(self) -> None:
        self._connection.probe()

    def inspect(self) -> StorageFacts:
        connection = self._connection
        with translated_errors(), pymongo.timeout(connection.timeout_s):
            return inspection.inspect(connection.written)

    @property
    def _connection(self) -> Connection:
        connection = self._opened
        if connection is None:
            raise StorageUnavailableError("the storage is not open")
        return connection

    @property
    def _by_id(self) -> MongoDbReads:
        connection, settings = self._connection, self._settings
        return MongoDbReads(connection, connection.read_slots, settings.read_timeout_s, settings.stream_chunk_row_count)

    @property
    def _streamed(self) -> MongoDbReads:
        connection, settings = self._connection, self._settings
        return MongoDbReads(
            connection, connection.stream_slots, settings.stream_timeout_s, settings.stream_chunk_row_count
        )

    def _write(self, name: str, rows: Sequence[Row]) -> None:
        connection = self._connection
        if not rows:
            return
        with connection.write_slots.held():
            try:
                with translated_errors():
                    write(connection.write_to(name), name, rows)
            except StorageUnavailableError as error:
                if not isinstance(error.__cause__, NetworkTimeout):
                    raise
                # Either the write was too large, or the server is away: then this raises too.
                connection.probe()
                text = f"MongoDB: no answer to a write within {self._settings.write_timeout_s:g} s"
                raise StorageTimeoutError(text) from error
