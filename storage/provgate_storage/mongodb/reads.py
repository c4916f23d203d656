"""The reads: their aggregation pipelines, their documents, and the stream that runs them."""

# ruff: noqa: D102 - `Reads` documents the methods

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import pymongo
from pymongo.client_session import ClientSession

from provgate_storage.database.reads import Reads, RowStream
from provgate_storage.database.schema import ends_of, names_with_paths
from provgate_storage.model import EntityType, Id, Path, ProvenanceResult, RelationData, RelationType, RevisionData
from provgate_storage.mongodb.connection import Connection, Document, Slots
from provgate_storage.mongodb.failures import translated_errors
from provgate_storage.rows.values import to_date

T = TypeVar("T")

Stage: TypeAlias = Mapping[str, Any]
Decode: TypeAlias = Callable[[Iterator[Document]], Iterator[T]]

IDS_OF_A_QUERY: Final = 250
"""Ids that one query looks up: a read of more ids takes several queries."""


class Query(NamedTuple):
    """A pipeline, and the collection that it starts at."""

    collection: str
    pipeline: Sequence[Stage]


class MongoDbStream(RowStream[T]):
    """The rows of one or several queries, in one session: of one snapshot where the server offers that.

    Args:
        reads: says where to read, and with which limits.
        queries: the queries, one after the other.
        decode: makes rows of documents.
    """

    _session: ClientSession

    def __init__(self, reads: MongoDbReads, queries: Iterable[Query], decode: Decode[T]) -> None:
        super().__init__()
        self.queries = queries
        self._reads = reads
        self._decode = decode
        self._documents: Generator[Document, None, None] | None = None

    def _acquire(self) -> None:
        self._reads.slots.acquire()
        try:
            self._session = self._reads.connection.start_session()
        except BaseException:
            self._reads.slots.release()
            raise

    def _chunks(self) -> Iterator[list[T]]:
        self._documents = self._read()
        rows = self._decode(self._documents)
        while True:
            self._check_running()
            with translated_errors():
                chunk = list(islice(rows, self._reads.chunk_row_count))
            if not chunk:
                return
            self.is_over = len(chunk) < self._reads.chunk_row_count
            yield chunk

    def _read(self) -> Generator[Document, None, None]:
        for query in self.queries:
            self._check_running()
            collection = self._reads.connection.read_from(query.collection)
            with closing(
                collection.aggregate(
                    query.pipeline,
                    session=self._session,
                    allowDiskUse=True,
                    batchSize=self._reads.chunk_row_count,
                    maxTimeMS=round(self._reads.timeout_s * 1000),
                )
            ) as cursor:
                yield from cursor

    def _end_query(self) -> None:
        self._reads.connection.end(self._session)

    def _release(self, cancelled: bool) -> None:
        try:
            with pymongo.timeout(self._reads.connection.timeout_s):
                if self._documents is not None:
                    self._documents.close()
                self._session.end_session()
        finally:
            self._reads.slots.release()


_KNOWN: Final = {"$exists": True}
_WITHOUT_KEY: Final[Stage] = {"$project": {"_id": False}}


def _lookup(collection: str, local: str, foreign: str, name: str) -> Stage:
    return {"$lookup": {"from": collection, "localField": local, "foreignField": foreign, "as": name}}


# Origins are looked up last, so that the sort moves less data.
_DATED: Final[Sequence[Stage]] = (
    _lookup("revision", "revision", "_id", "known"),
    {"$unwind": "$known"},
    {"$match": {"known.date": _KNOWN}},
    {"$sort": {"known.date": 1, "revision": 1}},
    _lookup("origin", "known.origin", "_id", "origin"),
    {"$unwind": {"path": "$origin", "preserveNullAndEmptyArrays": True}},
    {"$project": {"revision": True, "prefix": True, "path": True, "date": "$known.date", "url": "$origin.url"}},
)


@dataclass(frozen=True, slots=True)
class MongoDbReads(Reads):
    """Makes the stream of each read.

    Attributes:
        connection: to the database.
        slots: the limit of streams that run at once.
        timeout_s: how long the server may work on a query, in seconds.
        chunk_row_count: the largest number of rows of a chunk.
    """

    connection: Connection
    slots: Slots
    timeout_s: float
    chunk_row_count: int

    def dates(self, entity: EntityType, ids: Iterable[Id]) -> MongoDbStream[tuple[Id, int]]:
        return MongoDbStream(self, _by_ids(entity, "_id", ids, {"$match": {"date": _KNOWN}}), partial(map, _date))

    def revisions(self, ids: Iterable[Id]) -> MongoDbStream[tuple[Id, RevisionData]]:
        known = {"$match": {"$or": [{"date": _KNOWN}, {"origin": _KNOWN}]}}
        return MongoDbStream(self, _by_ids(EntityType.REVISION, "_id", ids, known), partial(map, _revision))

    def origins(self, ids: Iterable[Id]) -> MongoDbStream[tuple[Id, str]]:
        return MongoDbStream(self, _by_ids(EntityType.ORIGIN, "_id", ids), partial(map, itemgetter("_id", "url")))

    def relations(
        self, relation: RelationType, ids: Iterable[Id], reverse: bool
    ) -> MongoDbStream[tuple[Id, RelationData]]:
        queries = _by_ids(relation, "dst" if reverse else "src", ids, _WITHOUT_KEY)
        return MongoDbStream(self, queries, partial(map, _relation))

    def all_relations(self, relation: RelationType) -> MongoDbStream[tuple[Id, RelationData]]:
        return MongoDbStream(self, [Query(relation.value, [_WITHOUT_KEY])], partial(map, _relation))

    def all_entities(self, entity: EntityType) -> MongoDbStream[Id]:
        (own, _), *others = ends_of(entity)
        return MongoDbStream(self, [_distinct(own, "_id", others)], partial(map, itemgetter("_id")))

    def all_locations(self) -> MongoDbStream[Path]:
        own, *others = names_with_paths()
        query = _distinct(own, "path", [(name, "path") for name in others])
        return MongoDbStream(self, [query], partial(map, itemgetter("_id")))

    def first_occurrence(self, content: Id) -> MongoDbStream[ProvenanceResult]:
        query = Query(RelationType.CNT_EARLY_IN_REV.value, [*_early(content), *_DATED])
        return MongoDbStream(self, [query], partial(_occurrences, content, 1))

    def all_occurrences(self, content: Id, limit: int | None) -> MongoDbStream[ProvenanceResult]:
        # Those of one revision come in no order and may repeat: no operator of the server joins binary values, and its
        # order of them is by length first.
        in_directories = {
            "coll": RelationType.CNT_IN_DIR.value,
            "pipeline": [
                {"$match": {"src": content}},
                _lookup(RelationType.DIR_IN_REV.value, "dst", "src", "place"),
                {"$unwind": "$place"},
                {"$project": {"_id": False, "revision": "$place.dst", "prefix": "$place.path", "path": True}},
            ],
        }
        pipeline = [*_early(content), {"$unionWith": in_directories}, *_DATED]
        query = Query(RelationType.CNT_EARLY_IN_REV.value, pipeline)
        return MongoDbStream(self, [query], partial(_occurrences, content, limit))


def _by_ids(collection: str, field: str, ids: Iterable[Id], *stages: Stage) -> Iterator[Query]:
    remaining = iter(ids)
    while piece := list(islice(remaining, IDS_OF_A_QUERY)):
        yield Query(str(collection), [{"$match": {field: {"$in": piece}}}, *stages])


def _distinct(collection: str, field: str, others: Iterable[tuple[str, str]]) -> Query:
    """Returns the query for the values, each once and as `_id`, of a field and of fields of other collections."""

    def values(of: str) -> Stage:
        return {"$group": {"_id": f"${of}"}}

    unions = [{"$unionWith": {"coll": name, "pipeline": [values(other)]}} for name, other in others]
    # A missing field is null: a revision without an origin.
    return Query(collection, [values(field), *unions, values("_id"), {"$match": {"_id": {"$ne": None}}}])


def _early(content: Id) -> list[Stage]:
    return [{"$match": {"src": content}}, {"$project": {"_id": False, "revision": "$dst", "path": True}}]


def _date(document: Document) -> tuple[Id, int]:
    return document["_id"], int(document["date"])


def _revision(document: Document) -> tuple[Id, RevisionData]:
    date = document.get("date")
    return document["_id"], RevisionData(None if date is None else to_date(date), document.get("origin"))


def _relation(document: Document) -> tuple[Id, RelationData]:
    return document["src"], RelationData(document["dst"], document.get("path"))


def _occurrences(content: Id, limit: int | None, documents: Iterator[Document]) -> Iterator[ProvenanceResult]:
    """Yields occurrences in their order, each once, of documents in the order of date and revision.

    Only the occurrences in one revision are in memory at once.
    """

    def revision_of(document: Document) -> tuple[Id, int, str | None]:
        return document["revision"], document["date"], document.get("url")

    def path_of(document: Document) -> bytes:
        prefix, path = document.get("prefix", b""), document["path"]
        return bytes(path if prefix in (b"", b".") else prefix + b"/" + path)

    found = (
        ProvenanceResult(content, revision, to_date(date), url, path)
        for (revision, date, url), group in groupby(documents, key=revision_of)
        for path in sorted(set(map(path_of, group)))
    )
    return islice(found, limit)
