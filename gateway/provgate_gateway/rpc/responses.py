"""From rows of the storage to response messages.

Fields are set one by one in large messages: a constructor's keywords and `Timestamp.FromDatetime` cost twice as much.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from provgate.v1 import model_pb2
from provgate.v1 import provenance_storage_pb2 as pb2
from provgate_storage.model import Id, Path, ProvenanceResult, RelationData, RevisionData
from provgate_storage.rows.values import EPOCH, MICROSECONDS_OF_SECOND

_SECONDS_A_DAY: Final = 86_400


def contents(rows: list[tuple[Id, int]]) -> pb2.ContentGetResponse:
    """Returns contents with dates in microseconds since 1970."""
    response = pb2.ContentGetResponse()
    _set_dated(response.contents.add, rows)
    return response


def content_columns(rows: list[tuple[Id, int]]) -> pb2.ContentGetResponse:
    """Returns contents in columns."""
    return pb2.ContentGetResponse(columns=[_dated_columns(rows)])


def directories(rows: list[tuple[Id, int]]) -> pb2.DirectoryGetResponse:
    """Returns directories with dates in microseconds since 1970."""
    response = pb2.DirectoryGetResponse()
    _set_dated(response.directories.add, rows)
    return response


def directory_columns(rows: list[tuple[Id, int]]) -> pb2.DirectoryGetResponse:
    """Returns directories in columns."""
    return pb2.DirectoryGetResponse(columns=[_dated_columns(rows)])


def revisions(rows: list[tuple[Id, RevisionData]]) -> pb2.RevisionGetResponse:
    """Returns revisions with what is known of them."""
    response = pb2.RevisionGetResponse()
    for id, data in rows:
        revision = response.revisions.add(id=id, origin=data.origin)
        if data.date is not None:
            set_date(revision.date, data.date)
    return response


def origins(rows: list[tuple[Id, str]]) -> pb2.OriginGetResponse:
    """Returns origins."""
    return pb2.OriginGetResponse(origins=[model_pb2.Origin(id=id, url=url) for id, url in rows])


def relations(rows: list[tuple[Id, RelationData]]) -> pb2.RelationGetResponse:
    """Returns rows of a relation."""
    response = pb2.RelationGetResponse()
    _set_relations(response.relations.add, rows)
    return response


def all_relations(rows: list[tuple[Id, RelationData]]) -> pb2.RelationGetAllResponse:
    """Returns rows of a whole relation."""
    response = pb2.RelationGetAllResponse()
    _set_relations(response.relations.add, rows)
    return response


def entities(rows: list[Id]) -> pb2.EntityGetAllResponse:
    """Returns ids."""
    return pb2.EntityGetAllResponse(ids=rows)


def locations(rows: list[Path]) -> pb2.LocationGetAllResponse:
    """Returns paths."""
    return pb2.LocationGetAllResponse(paths=rows)


def first(result: ProvenanceResult | None) -> pb2.ContentFindFirstResponse:
    """Returns the first occurrence, or none."""
    response = pb2.ContentFindFirstResponse()
    if result is not None:
        set_result(response.result, result)
    return response


def occurrences(rows: list[ProvenanceResult]) -> pb2.ContentFindAllResponse:
    """Returns occurrences."""
    response = pb2.ContentFindAllResponse()
    for row in rows:
        set_result(response.results.add(), row)
    return response


def _set_dated(
    add: Callable[[], model_pb2.Content] | Callable[[], model_pb2.Directory], rows: list[tuple[Id, int]]
) -> None:
    for id, date in rows:
        entity = add()
        entity.id = id
        seconds, microseconds = divmod(date, MICROSECONDS_OF_SECOND)
        entity.date.seconds = seconds
        entity.date.nanos = microseconds * 1000


def _dated_columns(rows: list[tuple[Id, int]]) -> model_pb2.DatedColumns:
    return model_pb2.DatedColumns(ids=[id for id, _ in rows], dates=[date for _, date in rows])


def _set_relations(add: Callable[[], model_pb2.Relation], rows: list[tuple[Id, RelationData]]) -> None:
    for src, data in rows:
        row = add()
        row.src = src
        row.dst = data.dst
        if data.path is not None:
            row.path = data.path


def set_result(message: model_pb2.ProvenanceResult, result: ProvenanceResult) -> None:
    """Fills in an occurrence."""
    message.content = result.content
    message.revision = result.revision
    message.path = result.path
    set_date(message.date, result.date)
    if result.origin is not None:
        message.origin = result.origin


def set_date(timestamp: Timestamp, date: datetime) -> None:
    """Fills in a date."""
    since = date - EPOCH
    timestamp.seconds = since.days * _SECONDS_A_DAY + since.seconds
    timestamp.nanos = since.microseconds * 1000
