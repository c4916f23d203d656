"""A read whose rows come in chunks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Generic, Self, TypeVar

import pymongo
from pymongo.client_session import ClientSession

from provgate_storage.errors import StorageError, StorageUnavailableError
from provgate_storage.mongodb.connection import Connection, Document, Slots
from provgate_storage.mongodb.failures import translated_errors
from provgate_storage.mongodb.queries import Query

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Source:
    """Where streams of one kind read.

    Attributes:
        connection: to the database.
        slots: how many of them run at once.
        timeout_s: how long the server may work on a query, in seconds.
        chunk_row_count: rows of a chunk, at most.
    """

    connection: Connection
    slots: Slots
    timeout_s: float
    chunk_row_count: int


class MongoDbRowStream(Generic[T]):
    """The rows of one or several queries, in one session: of one snapshot where the server offers that.

    It holds a slot from the first chunk to its end or `close`. It is iterated once, by one thread.

    Args:
        source: where it reads.
        queries: whose documents follow one another.
        decode: makes rows of ours of the documents.
    """

    def __init__(
        self, source: Source, queries: Iterable[Query], decode: Callable[[Iterator[Document]], Iterator[T]]
    ) -> None:
        self._source = source
        self._queries = queries
        self._decode = decode
        # Held while the session is ended or given up: the server's session of one that is back may be somebody else's.
        self._lock = threading.RLock()
        self._session: ClientSession | None = None
        self._documents: Generator[Document, None, None] | None = None
        self._cancelled = False
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[list[T]]:
        """Yields chunks of rows, none of them empty.

        Raises:
            StorageBusyError: no slot became free in time.
            StorageUnavailableError: the connection was lost, a time limit passed, or the stream was cancelled.
            SchemaMismatchError: the database was never set up.
        """
        try:
            rows = self._decode(self._opened())
            while chunk := self._chunk(rows):
                yield chunk
        finally:
            self.close()

    def cancel(self) -> None:
        """Ends the query from any thread, over another connection to the server.

        The thread that iterates gets `StorageUnavailableError` where it waits or when it asks for the next chunk.
        """
        with self._lock:
            self._cancelled = True
            if self._session is not None:
                with suppress(StorageError):  # the server cannot be reached: the query's own connection is lost too
                    self._source.connection.end(self._session)

    def close(self) -> None:
        """Ends the query and gives its slot back. Does nothing the second time."""
        with self._lock:
            self._closed = True
            session, self._session = self._session, None
            if session is None:
                return
            try:
                with pymongo.timeout(self._source.connection.timeout_s):
                    if self._documents is not None:
                        self._documents.close()
                    session.end_session()
            finally:
                self._source.slots.give_back()

    def _opened(self) -> Iterator[Document]:
        self._check_running()
        self._source.slots.take()
        try:
            session = self._source.connection.start_session()
        except BaseException:
            self._source.slots.give_back()
            raise
        with self._lock:
            self._session = session
        self._documents = self._read(session)
        return self._documents

    def _chunk(self, rows: Iterator[T]) -> list[T]:
        self._check_running()
        with translated_errors():
            return list(islice(rows, self._source.chunk_row_count))

    def _read(self, session: ClientSession) -> Generator[Document, None, None]:
        for query in self._queries:
            self._check_running()
            collection = self._source.connection.read_from(query.collection)
            with closing(
                collection.aggregate(
                    query.pipeline,
                    session=session,
                    allowDiskUse=True,
                    batchSize=self._source.chunk_row_count,
                    maxTimeMS=round(self._source.timeout_s * 1000),
                )
            ) as cursor:
                yield from cursor

    def _check_running(self) -> None:
        if self._cancelled:
            raise StorageUnavailableError("the read was cancelled")
        if self._closed:
            raise StorageUnavailableError("the read was closed")
