"""`ProvenanceStorageGrpc`, the adapter: the storage interface over gRPC."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from provgate.v1 import provenance_storage_pb2 as service
from provgate_client.adapter import conversion, messages, reading, writing
from provgate_client.adapter.channel import GatewaySession
from provgate_client.adapter.messages import EntryKind
from provgate_client.adapter.progress import ProgressCallback
from provgate_client.adapter.reading import Query
from provgate_client.errors import StorageClosedError
from provgate_client.settings import SECTION_PATH, GrpcSettings
from provgate_runtime import convert
from provgate_storage.model import EntityType, Id, Path, ProvenanceResult, RelationData, RelationType, RevisionData
from provgate_storage.rows.values import check_id, check_relation

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


class ProvenanceStorageGrpc:
    """`ProvenanceStorageInterface` over a gRPC channel to the gateway.

    Many threads may use an open storage at once; each call runs in the thread that makes it. A storage belongs to the
    process that opened it: after a fork the child must open its own. A closed storage can be opened again.

    Writes accept a collection of any size and use bounded memory. They are cut into messages of at most
    `message_entries` entries and 3 MiB. A bare iterator is collected first, because every value is checked before
    anything is sent. The collection must not change until the method returns. While the gateway is unavailable or busy,
    a write is repeated from its last checkpoint until `retry_time_s` pass without progress. Then it returns False, or
    raises a `RetryableStorageError` if `raise_on_failure` is set. If the gateway refuses the write, another `CallError`
    is raised in either case. An exception in the thread that writes, such as Ctrl-C, cancels the call.

    Reads raise `CallError`. They are repeated in the same way as long as no row was given to the caller.

    Args:
        progress: called as writes make progress; see `ProgressCallback`.
        **settings: the fields of `GrpcSettings`, for example `url="localhost:50051"`.

    Raises:
        ConfigurationError: a setting is unknown, of the wrong type or invalid.
    """

    def __init__(self, *, progress: ProgressCallback | None = None, **settings: Any) -> None:
        self.settings = convert(settings, GrpcSettings, SECTION_PATH)
        self._progress = progress
        self._lock = threading.Lock()
        self._opened: GatewaySession | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Connects. Does nothing if the storage is open.

        Raises:
            GatewayUnavailableError: no gateway answers within the connect timeout.
            ConfigurationError: a file of certificates or keys cannot be read.
        """
        with self._lock:
            if self._opened is None:
                self._opened = GatewaySession(self.settings)

    def close(self) -> None:
        """Cancels running calls and disconnects. Does nothing if the storage is closed."""
        with self._lock:
            session, self._opened = self._opened, None
        if session is not None:
            session.close()

    def content_add(self, cnts: Iterable[Id] | Mapping[Id, datetime | None]) -> bool:
        """Adds contents."""
        return self.write(messages.CONTENT, _with_data(cnts, None))

    def directory_add(self, dirs: Iterable[Id] | Mapping[Id, datetime | None]) -> bool:
        """Adds directories."""
        return self.write(messages.DIRECTORY, _with_data(dirs, None))

    def location_add(self, paths: Iterable[Path]) -> bool:
        """Adds locations."""
        return self.write(messages.LOCATION, messages.collected(paths))

    def origin_add(self, orgs: Mapping[Id, str]) -> bool:
        """Adds origins."""
        return self.write(messages.ORIGIN, orgs.items())

    def revision_add(self, revs: Iterable[Id] | Mapping[Id, RevisionData]) -> bool:
        """Adds revisions."""
        return self.write(messages.REVISION, _with_data(revs, RevisionData(None, None)))

    def relation_add(self, relation: RelationType, data: Mapping[Id, set[RelationData]]) -> bool:
        """Adds rows of a relation."""
        return self.write(messages.relation_kind(check_relation(relation)), messages.RelationRows(data))

    def content_get(self, ids: Iterable[Id]) -> dict[Id, datetime]:
        """Returns the dates of contents."""
        return self._mapping(reading.content_get(ids))

    def directory_get(self, ids: Iterable[Id]) -> dict[Id, datetime]:
        """Returns the dates of directories."""
        return self._mapping(reading.directory_get(ids))

    def revision_get(self, ids: Iterable[Id]) -> dict[Id, RevisionData]:
        """Returns the dates and preferred origins of revisions."""
        return self._mapping(reading.revision_get(ids))

    def origin_get(self, ids: Iterable[Id]) -> dict[Id, str]:
        """Returns the URLs of origins."""
        return self._mapping(reading.origin_get(ids))

    def relation_get(
        self, relation: RelationType, ids: Iterable[Id], reverse: bool = False
    ) -> dict[Id, set[RelationData]]:
        """Returns the rows of a relation that start, or end, at ids, by their source."""
        return self._rows_by_source(reading.relation_get(relation, ids, reverse))

    def relation_get_all(self, relation: RelationType) -> dict[Id, set[RelationData]]:
        """Returns all rows of a relation by their source."""
        return self._rows_by_source(reading.relation_get_all(relation))

    def entity_get_all(self, entity: EntityType) -> set[Id]:
        """Returns the ids of all entities of a type."""
        return self._set(reading.entity_get_all(entity))

    def location_get_all(self) -> set[Path]:
        """Returns all paths."""
        return self._set(reading.location_get_all())

    def content_find_first(self, id: Id) -> ProvenanceResult | None:
        """Returns the earliest occurrence of a content."""
        request = service.ContentFindFirstRequest(id=check_id(id))
        response = reading.read_one(self._session(), "content_find_first", request)
        return conversion.to_result(response.result) if response.HasField("result") else None

    def content_find_all(self, id: Id, limit: int | None = None) -> Generator[ProvenanceResult, None, None]:
        """Yields the occurrences of a content. Closing the generator cancels the call."""
        return self.stream(reading.content_find_all(id, limit))

    def with_path(self) -> bool:
        """Returns whether paths are kept."""
        return bool(reading.read_one(self._session(), "with_path", service.WithPathRequest()).with_path)

    def write(self, kind: EntryKind[T], rows: Iterable[T]) -> bool:
        """Writes entries of one kind. The methods above call it; it is public for callers that have no mapping.

        Args:
            kind: one of `provgate_client.adapter.messages`.
            rows: entries in the order in which they are sent. Every iteration must give the same entries. An id may
                occur more than once.
        """
        return writing.write(self._session(), kind, rows, self._progress)

    def stream(self, query: Query[T]) -> Generator[T, None, None]:
        """Yields the rows of a query of `provgate_client.adapter.reading`, unordered and in bounded memory."""
        return reading.stream(self._session(), query)

    def _session(self) -> GatewaySession:
        session = self._opened
        if session is None:
            raise StorageClosedError("the storage is not open")
        return session

    def _mapping(self, query: Query[tuple[K, V]]) -> dict[K, V]:
        found: dict[K, V] = {}
        for rows in reading.read(self._session(), query, rows_may_repeat=True):
            found.update(rows)
        return found

    def _set(self, query: Query[T]) -> set[T]:
        found: set[T] = set()
        for rows in reading.read(self._session(), query, rows_may_repeat=True):
            found.update(rows)
        return found

    def _rows_by_source(self, query: Query[tuple[Id, RelationData]]) -> dict[Id, set[RelationData]]:
        found: dict[Id, set[RelationData]] = {}
        for rows in reading.read(self._session(), query, rows_may_repeat=True):
            for src, row in rows:
                found.setdefault(src, set()).add(row)
        return found


def _with_data(ids: Iterable[Id] | Mapping[Id, V], data: V) -> Iterable[tuple[Id, V]]:
    return ids.items() if isinstance(ids, Mapping) else messages.Undated(ids, data)
