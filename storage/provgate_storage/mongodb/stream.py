"""A read whose rows come in chunks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import pymongo
from pymongo.client_session import ClientSession

from provgate_storage.mongodb.connection import Connection, Document, Slots
from provgate_storage.mongodb.failures import translated_errors
from provgate_storage.mongodb.queries import Query
from provgate_storage.stream import CancellableStream

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


class MongoDbRowStream(CancellableStream[T, ClientSession]):
    """The rows of one or several queries, in one session: of one snapshot where the server offers that.

    Args:
        source: where it reads.
        queries: whose documents follow one another.
        decode: makes rows of ours of the documents.
    """

    def __init__(
        self, source: Source, queries: Iterable[Query], decode: Callable[[Iterator[Document]], Iterator[T]]
    ) -> None:
        super().__init__()
        self._source = source
        self._queries = queries
        self._decode = decode
        self._documents: Generator[Document, None, None] | None = None

    def _take(self) -> ClientSession:
        self._source.slots.take()
        try:
            return self._source.connection.start_session()
        except BaseException:
            self._source.slots.give_back()
            raise

    def _chunks(self, taken: ClientSession) -> Iterator[list[T]]:
        self._documents = self._read(taken)
        rows = self._decode(self._documents)
        while chunk := self._chunk(rows):
            self.is_over = len(chunk) < self._source.chunk_row_count
            yield chunk

    def _end(self, held: ClientSession) -> None:
        self._source.connection.end(held)

    def _give_back(self, held: ClientSession, cancelled: bool) -> None:
        try:
            with pymongo.timeout(self._source.connection.timeout_s):
                if self._documents is not None:
                    self._documents.close()
                held.end_session()
        finally:
            self._source.slots.give_back()

    def _chunk(self, rows: Iterator[T]) -> list[T]:
        self.check_running()
        with translated_errors():
            return list(islice(rows, self._source.chunk_row_count))

    def _read(self, session: ClientSession) -> Generator[Document, None, None]:
        for query in self._queries:
            self.check_running()
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
