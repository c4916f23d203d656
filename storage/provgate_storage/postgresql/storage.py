"""The provenance index in PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from provgate_storage.database.database import DatabaseStorage
from provgate_storage.database.local import StorageFacts
from provgate_storage.errors import StorageUnavailableError
from provgate_storage.postgresql import inspection, schema
from provgate_storage.postgresql.connections import (
    ConnectionPool,
    Session,
    connect,
    read_session,
    setup_session,
    stream_session,
    write_session,
)
from provgate_storage.postgresql.reads import PostgreSqlReads
from provgate_storage.postgresql.schema import TABLES
from provgate_storage.postgresql.settings import PostgreSqlSettings, parse_settings
from provgate_storage.postgresql.writes import write


class ProvenanceStoragePostgreSql(DatabaseStorage):
    """A `LocalStorage` over a PostgreSQL database.

    Thread-safe. Writes, reads by id and streamed reads have pools of their own and never wait for one another;
    connections are made when they are needed. A write is one transaction. Only writes and `setup` need more than SELECT
    rights.

    Args:
        **kwargs: the fields of `PostgreSqlSettings`.

    Raises:
        ConfigurationError: they are not.
    """

    settings_type: ClassVar[type[PostgreSqlSettings]] = PostgreSqlSettings
    """What `**kwargs` are the fields of."""

    def __init__(self, **kwargs: Any) -> None:
        self._settings = parse_settings(kwargs)
        self._lock = threading.Lock()
        self._pools: _Pools | None = None

    def open(self) -> None:
        """Connects; writes nothing and does not look at the schema, which `check` does.

        Raises:
            StorageUnavailableError: the database cannot be reached; the storage stays closed.
        """
        with self._lock:
            if self._pools is None:
                pools = _Pools(self._settings)
                pools.probe()
                self._pools = pools

    def close(self) -> None:
        """Closes all connections, those that are in use when their calls end."""
        with self._lock:
            pools, self._pools = self._pools, None
        if pools is not None:
            pools.close()

    def setup(self, range_counts: Mapping[str, int]) -> None:
        """Creates what is missing of the schema, and records the range counts where none are recorded."""
        with self._open_pools.setups.transaction() as cursor:
            schema.set_up(cursor, range_counts)

    def replace_range_counts(self, range_counts: Mapping[str, int]) -> None:
        """Records the range counts in place of those recorded before."""
        with self._open_pools.setups.transaction() as cursor:
            schema.replace_range_counts(cursor, range_counts)

    def check(self, range_counts: Mapping[str, int] | None) -> None:
        """Compares schema and range counts with what the program expects; None compares the schema alone."""
        with self._open_pools.reads.transaction() as cursor:
            schema.check(cursor, range_counts)

    def recorded_range_counts(self) -> dict[str, int] | None:
        """Returns the range count of each exchange that was recorded last; None where there is no schema."""
        with self._open_pools.reads.transaction() as cursor:
            return schema.recorded_range_counts(cursor)

    def probe(self) -> None:
        """Makes one round trip to the database."""
        self._open_pools.probe()

    def inspect(self) -> StorageFacts:
        """Returns what the server tells of itself."""
        with self._open_pools.reads.transaction() as cursor:
            return inspection.inspect(cursor)

    @property
    def _open_pools(self) -> _Pools:
        pools = self._pools
        if pools is None:
            raise StorageUnavailableError("the storage is not open")
        return pools

    @property
    def _by_id(self) -> PostgreSqlReads:
        return PostgreSqlReads(self._open_pools.reads, self._settings.stream_chunk_row_count)

    @property
    def _streamed(self) -> PostgreSqlReads:
        return PostgreSqlReads(self._open_pools.streams, self._settings.stream_chunk_row_count)

    def _write(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        pools = self._open_pools
        if rows:
            with pools.writes.transaction() as cursor:
                write(cursor, TABLES[name], rows)


class _Pools:
    """The pools of an open storage."""

    def __init__(self, settings: PostgreSqlSettings) -> None:
        self.setups = _pool(setup_session(settings), 1, settings.connection_wait_s)
        self.writes = _pool(write_session(settings), settings.write_connections, settings.connection_wait_s)
        self.reads = _pool(read_session(settings), settings.read_connections, settings.connection_wait_s)
        self.streams = _pool(stream_session(settings), settings.stream_connections, settings.stream_wait_s)

    def probe(self) -> None:
        with self.reads.transaction() as cursor:
            cursor.execute("SELECT 1")

    def close(self) -> None:
        for pool in (self.streams, self.reads, self.writes, self.setups):
            pool.close()


def _pool(session: Session, size: int, wait_s: float) -> ConnectionPool:
    return ConnectionPool(partial(connect, session), size, wait_s)
