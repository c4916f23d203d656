"""The adapter."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from provgate.v1 import provenance_storage_pb2 as service
from provgate_client.adapter import conversion, reading, writing
from provgate_client.adapter import messages as entries
from provgate_client.adapter import reading as queries
from provgate_client.adapter.messages import EntryKind
from provgate_client.adapter.progress import ProgressCallback
from provgate_client.adapter.reading import Query
from provgate_client.adapter.session import GatewaySession
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

    An open storage may be used from many threads at once, each call in the thread that makes it. It belongs to the
    process that opened it: after a fork the child opens one of its own. Closed, it may be opened again.

    Writes are cut into messages of at most `message_entries` entries and 3 MiB, and take a collection of any size in
    bounded memory; only a bare iterator is collected first, because every value is checked before anything is sent. The
    collection must not change until the method returns. While the gateway is away or busy a write is repeated from its
    last checkpoint, until `retry_time_s` pass without progress. Then it returns False, or raises a
    `RetryableStorageError` where `raise_on_failure` is set; what the gateway refuses for good raises another
    `CallError` in any case. Interrupting a write, as Ctrl-C does, cancels its call.

    Reads raise `CallError`. They are repeated in the same way as long as nothing of the answer was given away.

    Args:
        progress: called as writes move on; see `ProgressCallback`.
        **settings: the fields of `GrpcSettings`, for example `url="localhost:50051"`.

    Raises:
        ConfigurationError: a setting is unknown, of the wrong type or impossible.
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
        """Connects. Does nothing where the storage is open.

        Raises:
            GatewayUnavailableError: no gateway answers within the connect timeout.
            ConfigurationError: a file of certificates or keys cannot be read.
        """
        with self._lock:
            if self._opened is None:
                self._opened = GatewaySession(self.settings)

    def close(self) -> None:
        """Cancels what is under way, and disconnects. Does nothing where the storage is closed."""
        with self._lock:
            session, self._opened = self._opened, None
        if session is not None:
            session.close()

    def content_add(self, cnts: Iterable[Id] | Mapping[Id, datetime | None]) -> bool:
        """Adds contents."""
        return self.write(entries.CONTENT, _with_data(cnts, None))

    def directory_add(self, dirs: Iterable[Id] | Mapping[Id, datetime | None]) -> bool:
        """Adds directories."""
        return self.write(entries.DIRECTORY, _with_data(dirs, None))

    def location_add(self, paths: Iterable[Path]) -> bool:
        """Adds locations."""
        return self.write(entries.LOCATION, entries.collected(paths))

    def origin_add(self, orgs: Mapping[Id, str]) -> bool:
        """Adds origins."""
        return self.write(entries.ORIGIN, orgs.items())

    def revision_add(self, revs: Iterable[Id] | Mapping[Id, RevisionData]) -> bool:
        """Adds revisions."""
        return self.write(entries.REVISION, _with_data(revs, RevisionData(None, None)))

    def relation_add(self, relation: RelationType, data: Mapping[Id, set[RelationData]]) -> bool:
        """Adds rows of a relation."""
        kind = entries.relation_kind(check_relation(relation))
        return self.write(kind, entries.RelationRows(data))

    def content_get(self, ids: Iterable[Id]) -> dict[Id, datetime]:
        """Returns the dates of contents."""
        return self._mapping(queries.content_get(ids))

    def directory_get(self, ids: Iterable[Id]) -> dict[Id, datetime]:
        """Returns the dates of directories."""
        return self._mapping(queries.directory_get(ids))

    def revision_get(self, ids: Iterable[Id]) -> dict[Id, RevisionData]:
        """Returns dates and preferred origins of revisions."""
        return self._mapping(queries.revision_get(ids))

    def origin_get(self, ids: Iterable[Id]) -> dict[Id, str]:
        """Returns the URLs of origins."""
        return self._mapping(queries.origin_get(ids))

    def relation_get(
        self, relation: RelationType, ids: Iterable[Id], reverse: bool = False
    ) -> dict[Id, set[RelationData]]:
        """Returns rows of a relation by source."""
        return self._rows_by_source(queries.relation_get(relation, ids, reverse))

    def relation_get_all(self, relation: RelationType) -> dict[Id, set[RelationData]]:
        """Returns all rows of a relation by source."""
        return self._rows_by_source(queries.relation_get_all(relation))

    def entity_get_all(self, entity: EntityType) -> set[Id]:
        """Returns the ids of all entities of a type."""
        return self._set(queries.entity_get_all(entity))

    def location_get_all(self) -> set[Path]:
        """Returns all paths."""
        return self._set(queries.location_get_all())

    def content_find_first(self, id: Id) -> ProvenanceResult | None:
        """Returns the earliest occurrence of a content."""
        request = service.ContentFindFirstRequest(id=check_id(id))
        response = reading.read_one(self._session(), "ContentFindFirst", request, "content_find_first")
        return conversion.to_result(response.result) if response.HasField("result") else None

    def content_find_all(self, id: Id, limit: int | None = None) -> Generator[ProvenanceResult, None, None]:
        """Yields the occurrences of a content. Closing the generator cancels the call."""
        return self.stream(queries.content_find_all(id, limit))

    def with_path(self) -> bool:
        """Returns whether paths are kept."""
        response = reading.read_one(self._session(), "WithPath", service.WithPathRequest(), "with_path")
        return bool(response.with_path)

    def write(self, kind: EntryKind[T], rows: Iterable[T]) -> bool:
        """Writes entries of a kind: what the methods above do, for callers that have no mapping.

        Args:
            kind: one of `provgate_client.adapter.messages`.
            rows: entries in the order in which they are sent; the same each time it is iterated. One id may occur more
                than once.
        """
        return writing.write(self._session(), kind, rows, self._progress)

    def stream(self, query: Query[T]) -> Generator[T, None, None]:
        """Yields the rows of a query of `provgate_client.adapter.reading`, in bounded memory and no order of ours."""
        return reading.stream(self._session(), query)

    def _session(self) -> GatewaySession:
        session = self._opened
        if session is None:
            raise StorageClosedError("the storage is not open")
        return session

    def _mapping(self, query: Query[tuple[K, V]]) -> dict[K, V]:
        found: dict[K, V] = {}
        reading.gather(self._session(), query, found.update)
        return found

    def _set(self, query: Query[T]) -> set[T]:
        found: set[T] = set()
        reading.gather(self._session(), query, found.update)
        return found

    def _rows_by_source(self, query: Query[tuple[Id, RelationData]]) -> dict[Id, set[RelationData]]:
        found: dict[Id, set[RelationData]] = {}

        def add(rows: Iterable[tuple[Id, RelationData]]) -> None:
            for src, row in rows:
                found.setdefault(src, set()).add(row)

        reading.gather(self._session(), query, add)
        return found


def _with_data(ids: Iterable[Id] | Mapping[Id, V], data: V) -> Iterable[tuple[Id, V]]:
    if isinstance(ids, Mapping):
        return ids.items()
    return entries.Undated(ids, data)
