"""The reads of the interface, each as a stream."""

# ruff: noqa: D102 - what a method without a docstring does is said by `Reads`

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from operator import itemgetter
from typing import TypeVar

import pymongo
from pymongo.client_session import ClientSession

from provgate_storage.database.stream import CancellableStream
from provgate_storage.model import EntityType, Id, Path, ProvenanceResult, RelationData, RelationType, RevisionData
from provgate_storage.mongodb import queries
from provgate_storage.mongodb.connection import Connection, Document, Slots
from provgate_storage.mongodb.failures import translated_errors
from provgate_storage.mongodb.queries import Query
from provgate_storage.rows.arguments import checked_ids
from provgate_storage.rows.values import check_entity, check_id, check_limit, check_relation, to_date

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


class MongoDbReads:
    """Makes the stream of each read, as `Reads` says.

    Args:
        source: where the streams read.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    def contents(self, ids: Iterable[Id]) -> MongoDbRowStream[tuple[Id, int]]:
        return self._stream(queries.dates(EntityType.CONTENT, checked_ids(ids)), partial(map, _date))

    def directories(self, ids: Iterable[Id]) -> MongoDbRowStream[tuple[Id, int]]:
        return self._stream(queries.dates(EntityType.DIRECTORY, checked_ids(ids)), partial(map, _date))

    def revisions(self, ids: Iterable[Id]) -> MongoDbRowStream[tuple[Id, RevisionData]]:
        return self._stream(queries.revisions(checked_ids(ids)), partial(map, _revision))

    def origins(self, ids: Iterable[Id]) -> MongoDbRowStream[tuple[Id, str]]:
        return self._stream(queries.origins(checked_ids(ids)), partial(map, itemgetter("_id", "url")))

    def relations(
        self, relation: RelationType, ids: Iterable[Id], reverse: bool
    ) -> MongoDbRowStream[tuple[Id, RelationData]]:
        made = queries.relations(check_relation(relation), checked_ids(ids), reverse)
        return self._stream(made, partial(map, _relation))

    def all_relations(self, relation: RelationType) -> MongoDbRowStream[tuple[Id, RelationData]]:
        return self._stream(queries.all_relations(check_relation(relation)), partial(map, _relation))

    def all_entities(self, entity: EntityType) -> MongoDbRowStream[Id]:
        return self._stream(queries.all_entities(check_entity(entity)), partial(map, itemgetter("_id")))

    def all_locations(self) -> MongoDbRowStream[Path]:
        return self._stream(queries.all_locations(), partial(map, itemgetter("_id")))

    def first_occurrence(self, content: Id) -> MongoDbRowStream[ProvenanceResult]:
        return self._stream(queries.first_occurrences(check_id(content)), partial(_occurrences, content, 1))

    def all_occurrences(self, content: Id, limit: int | None) -> MongoDbRowStream[ProvenanceResult]:
        return self._stream(
            queries.all_occurrences(check_id(content)), partial(_occurrences, content, check_limit(limit))
        )

    def _stream(
        self, made: Iterable[Query], decode: Callable[[Iterator[Document]], Iterator[T]]
    ) -> MongoDbRowStream[T]:
        return MongoDbRowStream(self._source, made, decode)


def _date(document: Document) -> tuple[Id, int]:
    return document["_id"], int(document["date"])


def _revision(document: Document) -> tuple[Id, RevisionData]:
    date = document.get("date")
    return document["_id"], RevisionData(None if date is None else to_date(date), document.get("origin"))


def _relation(document: Document) -> tuple[Id, RelationData]:
    return document["src"], RelationData(document["dst"], document.get("path"))


def _occurrences(content: Id, limit: int | None, documents: Iterator[Document]) -> Iterator[ProvenanceResult]:
    """Yields occurrences in their order, each once, of documents in the order of date and revision.

    What is in memory at once are the occurrences in one revision.
    """
    found = (
        ProvenanceResult(content, revision, to_date(date), url, path)
        for (revision, date, url), group in groupby(documents, key=_revision_of)
        for path in sorted({_joined(document.get("prefix", b""), document["path"]) for document in group})
    )
    return islice(found, limit)


def _revision_of(document: Document) -> tuple[Id, int, str | None]:
    return document["revision"], document["date"], document.get("url")


def _joined(prefix: Path, suffix: Path) -> bytes:
    return suffix if prefix in (b"", b".") else prefix + b"/" + suffix
