"""Reads as streams of rows: how a stream is iterated, cancelled and closed, and the reads that every database has."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Generic, Self, TypeVar

from provgate_storage.errors import StorageError, StorageTimeoutError, StorageUnavailableError
from provgate_storage.model import EntityType, Id, Path, ProvenanceResult, RelationData, RelationType, RevisionData

T = TypeVar("T")


class RowStream(ABC, Generic[T]):
    """The rows of one read, in chunks, all of one snapshot where the database offers that.

    A context manager that closes itself. One thread iterates it, once; `cancel` may be called from any thread. It holds
    a connection from its first chunk to its end or `close`.

    Attributes:
        is_over: whether the chunk yielded last is known to be the last.
    """

    def __init__(self) -> None:
        self.is_over = False
        # Held while the query is ended or its connection given back: afterwards the connection is another read's.
        self._lock = threading.RLock()
        self._has_connection = False
        self._cancelled = False
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[list[T]]:
        """Yields chunks of rows, none of them empty. The query starts with the first one.

        Raises:
            StorageBusyError: no connection became free in time.
            StorageUnavailableError: the connection was lost, or the stream was cancelled.
            StorageTimeoutError: a query took longer than its time limit.
            StorageForbiddenError: the user may not read the data.
            SchemaMismatchError: the database was never set up.
        """
        try:
            self._check_running()
            self._acquire()
            with self._lock:
                self._has_connection = True
            yield from self._chunks()
        except StorageTimeoutError:
            # Servers have one code for a query that took too long and for one that was cancelled.
            self._check_running()
            raise
        finally:
            self.close()

    def cancel(self) -> None:
        """Ends the query, over another connection to the server.

        The iterating thread gets `StorageUnavailableError`, at once if it waits, else when it asks for the next chunk.
        """
        with self._lock:
            self._cancelled = True
            if self._has_connection:
                with suppress(StorageError):  # the server cannot be reached: the query's own connection is lost too
                    self._end_query()

    def close(self) -> None:
        """Ends the query and gives its connection back. Does nothing the second time."""
        with self._lock:
            self._closed = True
            if self._has_connection:
                self._has_connection = False
                self._release(self._cancelled)

    def _check_running(self) -> None:
        """Raises `StorageUnavailableError` once the stream was cancelled or closed."""
        if self._cancelled:
            raise StorageUnavailableError("the read was cancelled")
        if self._closed:
            raise StorageUnavailableError("the read was closed")

    @abstractmethod
    def _acquire(self) -> None:
        """Takes what the stream reads with."""

    @abstractmethod
    def _chunks(self) -> Iterator[list[T]]:
        """Yields the chunks; calls `_check_running` before each, and sets `is_over` before the last."""

    @abstractmethod
    def _end_query(self) -> None:
        """Ends the query at the server."""

    @abstractmethod
    def _release(self, cancelled: bool) -> None:
        """Gives back what `_acquire` took."""


class Reads(ABC):
    """The streams of one kind, reads by id or streamed reads, of a database. Arguments are valid, ids distinct."""

    @abstractmethod
    def dates(self, entity: EntityType, ids: Collection[Id]) -> RowStream[tuple[Id, int]]:
        """Returns the dates of contents or directories that have one, in microseconds since 1970-01-01T00:00:00Z."""

    @abstractmethod
    def revisions(self, ids: Collection[Id]) -> RowStream[tuple[Id, RevisionData]]:
        """Returns the revisions that have a date, an origin or both."""

    @abstractmethod
    def origins(self, ids: Collection[Id]) -> RowStream[tuple[Id, str]]:
        """Returns the URLs of origins."""

    @abstractmethod
    def relations(
        self, relation: RelationType, ids: Collection[Id], reverse: bool
    ) -> RowStream[tuple[Id, RelationData]]:
        """Returns the rows of a relation by their sources, or destinations if `reverse`."""

    @abstractmethod
    def all_relations(self, relation: RelationType) -> RowStream[tuple[Id, RelationData]]:
        """Returns all rows of a relation."""

    @abstractmethod
    def all_entities(self, entity: EntityType) -> RowStream[Id]:
        """Returns the ids of all entities of a type, those that other rows name included, each once."""

    @abstractmethod
    def all_locations(self) -> RowStream[Path]:
        """Returns all paths, those of relations included, each once."""

    @abstractmethod
    def first_occurrence(self, content: Id) -> RowStream[ProvenanceResult]:
        """Returns the earliest occurrence of a content, or nothing."""

    @abstractmethod
    def all_occurrences(self, content: Id, limit: int | None) -> RowStream[ProvenanceResult]:
        """Returns the occurrences of a content, in the order of `content_find_all`."""
