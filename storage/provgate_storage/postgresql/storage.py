"""The provenance index in PostgreSQL."""

# ruff: noqa: D102 - what a method without a docstring does is said by the interface

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import chain
from types import TracebackType
from typing import Any, Self, TypeVar

from provgate_storage.arguments import (
    checked_dates,
    checked_locations,
    checked_origins,
    checked_relations,
    checked_revisions,
)
from provgate_storage.errors import StorageUnavailableError
from provgate_storage.local import RowStream
from provgate_storage.merge import add_relations
from provgate_storage.model import EntityType, Id, Path, ProvenanceResult, RelationData, RelationType, RevisionData
from provgate_storage.postgresql import schema
from provgate_storage.postgresql.pool import ConnectionPool
from provgate_storage.postgresql.reads import Reads
from provgate_storage.postgresql.session import Session, connect, read_session, stream_session, write_session
from provgate_storage.postgresql.settings import PostgreSqlSettings, parse_settings
from provgate_storage.postgresql.tables import CONTENT, DIRECTORY, LOCATION, ORIGIN, RELATIONS, REVISION, Table
from provgate_storage.postgresql.writes import write
from provgate_storage.values import check_relation

T = TypeVar("T")


class ProvenanceStoragePostgreSql:
    """A `LocalStorage` over a PostgreSQL database.

    Thread-safe. Writes, reads by id and streamed reads have pools of their own and never wait for one another;
    connections are made when they are needed. `content_find_all` and the `*_get_all` are streamed reads.

    A write is one transaction, committed when it returns True; it raises `StorageError` otherwise, never returns
    False, and may then be repeated where the error is retryable. Only writes and `setup` need more than SELECT rights.

    Args:
        **kwargs: the fields of `PostgreSqlSettings`.

    Raises:
        ConfigurationError: they are not.
    """

    def __init__(self, **kwargs: Any) -> None:
        self._settings = parse_settings(kwargs)
        self._lock = threading.Lock()
        self._pools: _Pools | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

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
        with self._open_pools.writes.transaction() as cursor:
            schema.set_up(cursor, range_counts)

    def replace_range_counts(self, range_counts: Mapping[str, int]) -> None:
        """Records the range counts in place of those recorded before."""
        with self._open_pools.writes.transaction() as cursor:
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

    def content_add(self, cnts: Iterable[Id] | Mapping[Id, datetime | None]) -> bool:
        return self._write(CONTENT, sorted(checked_dates(cnts).items(), key=_key))

    def directory_add(self, dirs: Iterable[Id] | Mapping[Id, datetime | None]) -> bool:
        return self._write(DIRECTORY, sorted(checked_dates(dirs).items(), key=_key))

    def location_add(self, paths: Iterable[Path]) -> bool:
        return self._write(LOCATION, [(path,) for path in sorted(checked_locations(paths))])

    def origin_add(self, orgs: Mapping[Id, str]) -> bool:
        return self._write(ORIGIN, sorted(checked_origins(orgs).items(), key=_key))

    def revision_add(self, revs: Iterable[Id] | Mapping[Id, RevisionData]) -> bool:
        known = sorted(checked_revisions(revs).items(), key=_key)
        return self._write(REVISION, [(revision, data.date, data.origin) for revision, data in known])

    def relation_add(self, relation: RelationType, data: Mapping[Id, set[RelationData]]) -> bool:
        relation = check_relation(relation)
        rows = checked_relations(relation, data)
        if relation.has_path:
            return self._write(RELATIONS[relation], sorted(rows))
        return self._write(RELATIONS[relation], sorted((src, dst) for src, dst, _ in rows))

    def content_get(self, ids: Iterable[Id]) -> dict[Id, datetime]:
        return dict(_rows(self._by_id.contents(ids)))

    def directory_get(self, ids: Iterable[Id]) -> dict[Id, datetime]:
        return dict(_rows(self._by_id.directories(ids)))

    def revision_get(self, ids: Iterable[Id]) -> dict[Id, RevisionData]:
        return dict(_rows(self._by_id.revisions(ids)))

    def origin_get(self, ids: Iterable[Id]) -> dict[Id, str]:
        return dict(_rows(self._by_id.origins(ids)))

    def relation_get(
        self, relation: RelationType, ids: Iterable[Id], reverse: bool = False
    ) -> dict[Id, set[RelationData]]:
        return _by_source(self._by_id.relations(relation, ids, reverse))

    def relation_get_all(self, relation: RelationType) -> dict[Id, set[RelationData]]:
        return _by_source(self._streamed.all_relations(relation))

    def entity_get_all(self, entity: EntityType) -> set[Id]:
        return set(_rows(self._streamed.all_entities(entity)))

    def location_get_all(self) -> set[Path]:
        return set(_rows(self._streamed.all_locations()))

    def content_find_first(self, id: Id) -> ProvenanceResult | None:
        return next(iter([*_rows(self._by_id.first_occurrence(id))]), None)

    def content_find_all(self, id: Id, limit: int | None = None) -> Generator[ProvenanceResult, None, None]:
        return _rows(self._streamed.all_occurrences(id, limit))

    def with_path(self) -> bool:
        return True

    def content_get_stream(self, ids: Iterable[Id]) -> RowStream[tuple[Id, datetime]]:
        return self._streamed.contents(ids)

    def directory_get_stream(self, ids: Iterable[Id]) -> RowStream[tuple[Id, datetime]]:
        return self._streamed.directories(ids)

    def revision_get_stream(self, ids: Iterable[Id]) -> RowStream[tuple[Id, RevisionData]]:
        return self._streamed.revisions(ids)

    def origin_get_stream(self, ids: Iterable[Id]) -> RowStream[tuple[Id, str]]:
        return self._streamed.origins(ids)

    def relation_get_stream(
        self, relation: RelationType, ids: Iterable[Id], reverse: bool = False
    ) -> RowStream[tuple[Id, RelationData]]:
        return self._streamed.relations(relation, ids, reverse)

    def relation_get_all_stream(self, relation: RelationType) -> RowStream[tuple[Id, RelationData]]:
        return self._streamed.all_relations(relation)

    def entity_get_all_stream(self, entity: EntityType) -> RowStream[Id]:
        return self._streamed.all_entities(entity)

    def location_get_all_stream(self) -> RowStream[Path]:
        return self._streamed.all_locations()

    def content_find_all_stream(self, id: Id, limit: int | None = None) -> RowStream[ProvenanceResult]:
        return self._streamed.all_occurrences(id, limit)

    @property
    def _open_pools(self) -> _Pools:
        pools = self._pools
        if pools is None:
            raise StorageUnavailableError("the storage is not open")
        return pools

    @property
    def _by_id(self) -> Reads:
        return Reads(self._open_pools.reads, self._settings.stream_chunk_row_count)

    @property
    def _streamed(self) -> Reads:
        return Reads(self._open_pools.streams, self._settings.stream_chunk_row_count)

    def _write(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> bool:
        pools = self._open_pools
        if rows:
            with pools.writes.transaction() as cursor:
                write(cursor, table, rows)
        return True


class _Pools:
    """The three pools of an open storage."""

    def __init__(self, settings: PostgreSqlSettings) -> None:
        self.writes = _pool(write_session(settings), settings.write_connections, settings.connection_wait_s)
        self.reads = _pool(read_session(settings), settings.read_connections, settings.connection_wait_s)
        self.streams = _pool(stream_session(settings), settings.stream_connections, settings.stream_wait_s)

    def probe(self) -> None:
        with self.reads.transaction() as cursor:
            cursor.execute("SELECT 1")

    def close(self) -> None:
        for pool in (self.streams, self.reads, self.writes):
            pool.close()


def _pool(session: Session, size: int, wait_s: float) -> ConnectionPool:
    return ConnectionPool(partial(connect, session), size, wait_s)


def _key(entry: tuple[Id, Any]) -> Id:
    return entry[0]


def _rows(stream: RowStream[T]) -> Generator[T, None, None]:
    with stream:
        yield from chain.from_iterable(stream)


def _by_source(stream: RowStream[tuple[Id, RelationData]]) -> dict[Id, set[RelationData]]:
    found: dict[Id, set[RelationData]] = {}
    add_relations(found, _rows(stream))
    return found
