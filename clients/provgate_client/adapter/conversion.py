"""Between the model and the messages: the one place that knows both.

Messages are built with `add()` and field assignment, which costs half of what constructors do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from provgate.v1 import model_pb2
from provgate.v1 import provenance_storage_pb2 as service
from provgate_client.progress import WriteProgress
from provgate_storage.model import EntityType, Id, Path, ProvenanceResult, RelationData, RelationType, RevisionData

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS_A_DAY: Final = 86_400

RELATIONS: Final = {each: model_pb2.RelationType.Value(f"RELATION_TYPE_{each.name}") for each in RelationType}
ENTITIES: Final = {each: model_pb2.EntityType.Value(f"ENTITY_TYPE_{each.name}") for each in EntityType}


def set_date(timestamp: Timestamp, date: datetime) -> None:
    """Sets `timestamp` to `date`, which has a time zone."""
    since = date - _EPOCH
    timestamp.seconds = since.days * _SECONDS_A_DAY + since.seconds
    timestamp.nanos = since.microseconds * 1000


def to_date(timestamp: Timestamp) -> datetime:
    """Returns `timestamp` in UTC, floored to microseconds."""
    return _EPOCH + timedelta(0, timestamp.seconds, timestamp.nanos // 1000)


def content_add_request(entries: Iterable[tuple[Id, datetime | None]]) -> service.ContentAddRequest:
    """Returns the message that adds contents."""
    request = service.ContentAddRequest()
    add = request.contents.add
    for entry_id, date in entries:
        content = add()
        content.id = entry_id
        if date is not None:
            set_date(content.date, date)
    return request


def directory_add_request(entries: Iterable[tuple[Id, datetime | None]]) -> service.DirectoryAddRequest:
    """Returns the message that adds directories."""
    request = service.DirectoryAddRequest()
    add = request.directories.add
    for entry_id, date in entries:
        directory = add()
        directory.id = entry_id
        if date is not None:
            set_date(directory.date, date)
    return request


def revision_add_request(entries: Iterable[tuple[Id, RevisionData]]) -> service.RevisionAddRequest:
    """Returns the message that adds revisions."""
    request = service.RevisionAddRequest()
    add = request.revisions.add
    for entry_id, data in entries:
        revision = add()
        revision.id = entry_id
        if data.date is not None:
            set_date(revision.date, data.date)
        if data.origin is not None:
            revision.origin = data.origin
    return request


def origin_add_request(entries: Iterable[tuple[Id, str]]) -> service.OriginAddRequest:
    """Returns the message that adds origins."""
    request = service.OriginAddRequest()
    add = request.origins.add
    for entry_id, url in entries:
        origin = add()
        origin.id = entry_id
        origin.url = url
    return request


def location_add_request(entries: Iterable[Path]) -> service.LocationAddRequest:
    """Returns the message that adds locations."""
    return service.LocationAddRequest(paths=entries)


def relation_add_request(
    relation: RelationType, entries: Iterable[tuple[Id, RelationData]]
) -> service.RelationAddRequest:
    """Returns the message that adds rows of `relation`."""
    request = service.RelationAddRequest(relation=RELATIONS[relation])
    add = request.relations.add
    for src, data in entries:
        row = add()
        row.src = src
        row.dst = data.dst
        if data.path is not None:
            row.path = data.path
    return request


def to_progress(progress: service.AddProgress) -> WriteProgress:
    """Returns the counts of a response to a write."""
    return WriteProgress(progress.received_count, progress.published_count, progress.acked_count)


def to_dates(
    entries: Iterable[model_pb2.Content] | Iterable[model_pb2.Directory],
) -> Iterator[tuple[Id, datetime]]:
    """Yields contents or directories with their dates."""
    for entry in entries:
        yield entry.id, to_date(entry.date)


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
    """Yields rows of a relation, each behind its source."""
    for entry in entries:
        yield entry.src, RelationData(entry.dst, entry.path if entry.HasField("path") else None)


def to_result(result: model_pb2.ProvenanceResult) -> ProvenanceResult:
    """Returns one occurrence of a content."""
    origin = result.origin if result.HasField("origin") else None
    return ProvenanceResult(result.content, result.revision, to_date(result.date), origin, result.path)
