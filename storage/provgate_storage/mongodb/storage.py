"""The provenance index in MongoDB."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pymongo
from pymongo.errors import NetworkTimeout

from provgate_storage.database.database import DatabaseStorage
from provgate_storage.database.local import StorageFacts
from provgate_storage.errors import StorageTimeoutError, StorageUnavailableError
from provgate_storage.mongodb import inspection, schema
from provgate_storage.mongodb.connection import Connection, Slots
from provgate_storage.mongodb.failures import translated_errors
from provgate_storage.mongodb.reads import MongoDbReads, Source
from provgate_storage.mongodb.settings import MongoDbSettings, parse_settings
from provgate_storage.mongodb.writes import write


class ProvenanceStorageMongoDb(DatabaseStorage):
    """A `LocalStorage` over a MongoDB database, 5.1 or newer.

    It is of a replica set (of one member, if need be), of a sharded cluster, or of a server on its own, which has no
    snapshots: a read may see what is written while it lasts.

    Thread-safe. Writes, reads by id and streamed reads are counted apart and never wait for one another. Each row of a
    write is merged by itself; a write that raises may have stored some of its rows, and is repeated as a whole. Only
    writes and `setup` need more than the role `read`.

    Args:
        **kwargs: the fields of `MongoDbSettings`.

    Raises:
        ConfigurationError: they are not.
    """

    settings_type: ClassVar[type[MongoDbSettings]] = MongoDbSettings
    """What `**kwargs` are the fields of."""

    def __init__(self, **kwargs: Any) -> None:
        self._settings = parse_settings(kwargs)
        self._lock = threading.Lock()
        self._opened: _Opened | None = None

    def open(self) -> None:
        """Connects; writes nothing and does not look at the schema, which `check` does.

        Raises:
            StorageUnavailableError: no primary can be reached; the storage stays closed.
        """
        with self._lock:
            if self._opened is None:
                self._opened = _Opened(self._settings)

    def close(self) -> None:
        """Closes all connections: calls that are under way raise `StorageUnavailableError`."""
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.connection.close()

    def setup(self, range_counts: Mapping[str, int]) -> None:
        """Creates what is missing of the schema, and records the range counts where none are recorded."""
        with translated_errors(), self._open.connection.setting_up() as database:
            schema.set_up(database, range_counts)

    def replace_range_counts(self, range_counts: Mapping[str, int]) -> None:
        """Records the range counts in place of those recorded before."""
        with translated_errors():
            schema.replace_range_counts(self._open.connection.written, range_counts)

    def check(self, range_counts: Mapping[str, int] | None) -> None:
        """Compares schema and range counts with what the program expects; None compares the schema alone."""
        with translated_errors():
            schema.check(self._open.connection.database, range_counts)

    def recorded_range_counts(self) -> dict[str, int] | None:
        """Returns the range count of each exchange that was recorded last; None where there is no schema."""
        with translated_errors():
            return schema.recorded_range_counts(self._open.connection.database)

    def probe(self) -> None:
        """Makes one round trip to the database."""
        self._open.connection.probe()

    def inspect(self) -> StorageFacts:
        """Returns what the server tells of itself."""
        connection = self._open.connection
        with translated_errors(), pymongo.timeout(connection.timeout_s):
            return inspection.inspect(connection.written)

    @property
    def _open(self) -> _Opened:
        opened = self._opened
        if opened is None:
            raise StorageUnavailableError("the storage is not open")
        return opened

    @property
    def _by_id(self) -> MongoDbReads:
        opened = self._open
        return MongoDbReads(self._source(opened, opened.reads, self._settings.read_timeout_s))

    @property
    def _streamed(self) -> MongoDbReads:
        opened = self._open
        return MongoDbReads(self._source(opened, opened.streams, self._settings.stream_timeout_s))

    def _source(self, opened: _Opened, slots: Slots, timeout_s: float) -> Source:
        return Source(opened.connection, slots, timeout_s, self._settings.stream_chunk_row_count)

    def _write(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        opened = self._open
        if rows:
            with opened.writes.taken():
                try:
                    with translated_errors():
                        write(opened.connection.write_to(name), name, rows)
                except StorageUnavailableError as error:
                    if not isinstance(error.__cause__, NetworkTimeout):
                        raise
                    # A server that does not answer anything else either is away.
                    opened.connection.probe()
                    text = f"MongoDB: no answer to a write within {self._settings.write_timeout_s:g} s"
                    raise StorageTimeoutError(text) from error


class _Opened:
    """The connection of an open storage, and the slots of each kind of use."""

    def __init__(self, settings: MongoDbSettings) -> None:
        self.writes = Slots(settings.write_connections, settings.connection_wait_s)
        self.reads = Slots(settings.read_connections, settings.connection_wait_s)
        self.streams = Slots(settings.stream_connections, settings.stream_wait_s)
        self.connection = Connection(settings)
