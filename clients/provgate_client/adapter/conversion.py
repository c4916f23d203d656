"""Conversion between the model of the storage interface and the messages of the service."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Final, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from provgate.v1 import model_pb2
from provgate.v1 import provenance_storage_pb2 as service
from provgate_client.adapter.progress import WriteProgress
from provgate_storage.model import EntityType, Id, Path, ProvenanceResult, RelationData, RelationType, RevisionData
from provgate_storage.rows.values import EPOCH, microseconds_of
from provgate_storage.rows.values import to_date as date_of

E = TypeVar("E")
K = TypeVar("K")

RELATIONS: Final = {each: model_pb2.RelationType.Value(f"RELATION_TYPE_{each.name}") for each in RelationType}
ENTITIES: Final = {each: model_pb2.EntityType.Value(f"ENTITY_TYPE_{each.name}") for each in EntityType}


def to_date(timestamp: Timestamp) -> datetime:
    """Returns `timestamp` in UTC, floored to microseconds."""
    return EPOCH + timedelta(0, timestamp.seconds, timestamp.nanos // 1000)


def content_add_request(entries: Sequence[tuple[Id, datetime | None]]) -> service.ContentAddRequest:
    """Returns the message that adds contents."""
    return service.ContentAddRequest(columns=_dated_columns(entries))


def directory_add_request(entries: Sequence[tuple[Id, datetime | None]]) -> service.DirectoryAddRequest:
    """Returns the message that adds directories."""
    return service.DirectoryAddRequest(columns=_dated_columns(entries))


def revision_add_request(entries: Sequence[tuple[Id, RevisionData]]) -> service.RevisionAddRequest:
    """Returns the message that adds revisions."""
    request = service.RevisionAddRequest()
    present = [(data.date is not None, data.origin is not None) for _, data in entries]
    for (dated, with_origin), block in _alike(entries, present):
        columns = request.columns.add(ids=[entry_id for entry_id, _ in block])
        if dated:
            columns.dates.extend(_microseconds([data.date for _, data in block]))
        if with_origin:
            columns.origins.extend([data.origin or b"" for _, data in block])
    return request


def origin_add_request(entries: Sequence[tuple[Id, str]]) -> service.OriginAddRequest:
    """Returns the message that adds origins."""
    request = service.OriginAddRequest()
    request.columns.add(ids=[entry_id for entry_id, _ in entries], urls=[url for _, url in entries])
    return request


def location_add_request(entries: Iterable[Path]) -> service.LocationAddRequest:
    """Returns the message that adds locations."""
    return service.LocationAddRequest(paths=entries)


def relation_add_request(
    relation: RelationType, entries: Sequence[tuple[Id, RelationData]]
) -> service.RelationAddRequest:
    """Returns the message that adds rows of `relation`."""
    request = service.RelationAddRequest(relation=RELATIONS[relation])
    columns = request.columns.add(srcs=[src for src, _ in entries], dsts=[data.dst for _, data in entries])
    if relation.has_path:
        columns.paths.extend([data.path for _, data in entries])  # type: ignore[misc]  # checked: every row has one
    return request


def _dated_columns(entries: Sequence[tuple[Id, datetime | None]]) -> Iterator[model_pb2.DatedColumns]:
    for dated, block in _alike(entries, [date is not None for _, date in entries]):
        ids = [entry_id for entry_id, _ in block]
        yield model_pb2.DatedColumns(ids=ids, dates=_microseconds([date for _, date in block]) if dated else None)


def _alike(entries: Sequence[E], present: Sequence[K]) -> Iterator[tuple[K, Sequence[E]]]:
    """Yields runs of entries that have the same fields, in order. A column has a value for each entry or for none.

    Args:
        entries: in the order in which they are sent.
        present: the fields that each entry has.
    """
    if len(set(present)) == 1:
        yield present[0], entries
        return
    for key, group in groupby(zip(present, entries, strict=True), itemgetter(0)):
        yield key, [entry for _, entry in group]


def _microseconds(dates: Sequence[datetime | None]) -> list[int]:
    return microseconds_of(dates)  # type: ignore[return-value]  # every date is known


def to_progress(progress: service.AddProgress) -> WriteProgress:
    """Returns the counts of a response to a write."""
    return WriteProgress(progress.received_count, progress.published_count, progress.acked_count)


def to_dates(columns: Iterable[model_pb2.DatedColumns]) -> Iterator[tuple[Id, datetime]]:
    """Yields contents or directories with their dates."""
    for block in columns:
        yield from zip(block.ids, map(date_of, block.dates), strict=True)


def to_revisions(entries: Iterable[model_pb2.Revision]) -> Iterator[tuple[Id, RevisionData]]:
    """Yields revisions."""
    for entry in entries:
        date = to_date(entry.date) if entry.HasField("date") else None
        yield entry.id, RevisionData(date, entry.origin if entry.HasField("origin") else None)


def to_origins(entries: Iterable[model_pb2.Origin]) -> Iterator[tuple[Id, str]]:
    """Yields origins."""
    for entry in entries:
        yield entry.id, entry.url


def to_relations(entries: Iterable[model_pb2.Relation]) -> Iterator[tuple[Id, RelationData]]:
    """Yields rows of a relation, each after its source."""
    for entry in entries:
        yield entry.src, RelationData(entry.dst, entry.path if entry.HasField("path") else None)


def to_results(results: Iterable[model_pb2.ProvenanceResult]) -> Iterator[ProvenanceResult]:
    """Yields occurrences of contents."""
    return map(to_result, results)


def to_result(result: model_pb2.ProvenanceResult) -> ProvenanceResult:
    """Returns one occurrence of a content."""
    origin = result.origin if result.HasField("origin") else None
    return ProvenanceResult(result.content, result.revision, to_date(result.date), origin, result.path)
