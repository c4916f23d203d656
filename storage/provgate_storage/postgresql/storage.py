"""The provenance index in PostgreSQL."""

# ruff: noqa: D102 - `LocalStorage` documents the methods

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from provgate_storage.database.local import LocalStorage, StorageFacts
from provgate_storage.errors import StorageUnavailableError
from provgate_storage.postgresql import inspection, schema
from provgate_storage.postgresql.connections import (
    connect,
    read_session,
    setup_session,
    stream_session,
    write_session,
)
from provgate_storage.postgresql.pool import ConnectionPool
from provgate_storage.postgresql.reads import PostgreSqlReads
from provgate_storage.postgresql.schema import TABLES
from provgate_storage.postgresql.settings import PostgreSqlSettings, parse_settings
from provgate_storage.postgresql.writes import write
from provgate_storage.rows.rows import Row


class ProvenanceStoragePostgreSql(LocalStorage):
    """A `LocalStorage` over a PostgreSQL database.

    Thread-safe. Writes, reads by id and streamed reads have pools of their own and never wait for one another;
    connections are made when they are needed. A write is one transaction. Only writes and `setup` need more than SELECT
    rights. After `close`, connections in use are closed when their calls end.

    Args:
        **kwargs: the fields of `PostgreSqlSettings`.

    Raises:
        ConfigurationError: an argument is invalid.
    """

    settings_type: ClassVar[type[PostgreSqlSettings]] = PostgreSqlSettings
    """The type of `**kwargs`."""

    def __init__(self, **kwargs: Any) -> None:
        self._settings = parse_settings(kwargs)
        self._lock = threading.Lock()
        self._opened: _Pools | None = None

    def open(self) -> None:
        with self._lock:
            if self._opened is None:
                pools = _Pools(self._settings)
                pools.probe()
                self._opened = pools

    def close(self) -> None:
        with self._lock:
            pools, self._opened = self._opened, None
        if pools is not None:
            pools.close()

    def setup(self, range_counts: Mapping[str, int]) -> None:
        with self._pools.setups.transaction() as cursor:
            schema.set_up(cursor, range_counts)

    def replace_range_counts(self, range_counts: Mapping[str, int]) -> None:
        with self._pools.setups.transaction() as cursor:
            schema.replace_range_counts(cursor, range_counts)

    def check(self, range_counts: Mapping[str, int] | None) -> None:
        with self._pools.reads.transaction() as cursor:
            schema.check(cursor, range_counts)

    def recorded_range_counts(self) -> dict[str, int] | None:
        with self._pools.reads.transaction() as cursor:
            return schema.recorded_range_counts(cursor)

    def probe(self) -> None:
        self._pools.probe()

    def inspect(self) -> StorageFacts:
        with self._pools.reads.transaction() as cursor:
            return inspection.inspect(cursor)

    @property
    def _pools(self) -> _Pools:
        pools = self._opened
        if pools is None:
            raise StorageUnavailableError("the storage is not open")
        return pools

    @property
    def _by_id(self) -> PostgreSqlReads:
        return PostgreSqlReads(self._pools.reads, self._settings.stream_chunk_row_count)

    @property
    def _streamed(self) -> PostgreSqlReads:
        return PostgreSqlReads(self._pools.streams, self._settings.stream_chunk_row_count)

    def _write(self, name: str, rows: Sequence[Row]) -> None:
        pools = self._pools
        if rows:
            with pools.writes.transaction() as cursor:
                write(cursor, TABLES[name], rows)


class _Pools:
    """The pools of an open storage."""

    def __init__(self, settings: PostgreSqlSettings) -> None:
        wait_s = settings.connection_wait_s
        self.setups = ConnectionPool(partial(connect, setup_session(settings)), 1, wait_s)
        self.writes = ConnectionPool(partial(connect, write_session(settings)), settings.write_connections, wait_s)
        self.reads = ConnectionPool(partial(connect, read_session(settings)), settings.read_connections, wait_s)
        self.streams = ConnectionPool(
            partial(connect, stream_session(settings)), settings.stream_connections, settings.stream_wait_s
        )

    def probe(self) -> None:
        with self.reads.transaction() as cursor:
            cursor.execute("SELECT 1")

    def close(self) -> None:
        for pool in (self.streams, self.reads, self.writes, self.setups):
            pool.close()
