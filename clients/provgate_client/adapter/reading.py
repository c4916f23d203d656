"""Reads: the queries of the interface, and the calls that answer them, repeated where that is safe."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from provgate.v1 import provenance_storage_pb2 as service
from provgate_client.adapter import conversion
from provgate_client.adapter.channel import GatewaySession
from provgate_storage.model import EntityType, Id, Path, ProvenanceResult, RelationData, RelationType, RevisionData
from provgate_storage.rows.values import are_ids, check_each, check_entity, check_id, check_limit, check_relation

Row = TypeVar("Row")
Row_co = TypeVar("Row_co", covariant=True)

IDS_A_REQUEST: Final = 10_000


@dataclass(frozen=True, slots=True)
class Query(Generic[Row_co]):
    """A streamed read.

    Attributes:
        method: the method of the interface.
        requests: together they ask for everything; none if there is nothing to ask for.
        field: the field of a response that has the entries.
        rows: converts the entries of a response to rows.
    """

    method: str
    requests: Sequence[Message]
    field: str
    rows: Callable[[Any], Iterable[Row_co]]


def content_get(ids: Iterable[Id]) -> Query[tuple[Id, datetime]]:
    """Asks for the dates of contents."""
    requests = [service.ContentGetRequest(ids=part, columns=True) for part in _parts(ids)]
    return Query("content_get", requests, "columns", conversion.to_dates)


def directory_get(ids: Iterable[Id]) -> Query[tuple[Id, datetime]]:
    """Asks for the dates of directories."""
    requests = [service.DirectoryGetRequest(ids=part, columns=True) for part in _parts(ids)]
    return Query("directory_get", requests, "columns", conversion.to_dates)


def revision_get(ids: Iterable[Id]) -> Query[tuple[Id, RevisionData]]:
    """Asks for the dates and preferred origins of revisions."""
    requests = [service.RevisionGetRequest(ids=part) for part in _parts(ids)]
    return Query("revision_get", requests, "revisions", conversion.to_revisions)


def origin_get(ids: Iterable[Id]) -> Query[tuple[Id, str]]:
    """Asks for the URLs of origins."""
    requests = [service.OriginGetRequest(ids=part) for part in _parts(ids)]
    return Query("origin_get", requests, "origins", conversion.to_origins)


def relation_get(relation: RelationType, ids: Iterable[Id], reverse: bool) -> Query[tuple[Id, RelationData]]:
    """Asks for the rows of a relation that start, or end, at ids."""
    number = conversion.RELATIONS[check_relation(relation)]
    requests = [service.RelationGetRequest(relation=number, ids=part, reverse=bool(reverse)) for part in _parts(ids)]
    return Query("relation_get", requests, "relations", conversion.to_relations)


def relation_get_all(relation: RelationType) -> Query[tuple[Id, RelationData]]:
    """Asks for all rows of a relation."""
    request = service.RelationGetAllRequest(relation=conversion.RELATIONS[check_relation(relation)])
    return Query("relation_get_all", [request], "relations", conversion.to_relations)


def entity_get_all(entity: EntityType) -> Query[Id]:
    """Asks for the ids of all entities of a type."""
    request = service.EntityGetAllRequest(entity=conversion.ENTITIES[check_entity(entity)])
    return Query("entity_get_all", [request], "ids", iter)


def location_get_all() -> Query[Path]:
    """Asks for all paths."""
    return Query("location_get_all", [service.LocationGetAllRequest()], "paths", iter)


def content_find_all(id: Id, limit: int | None) -> Query[ProvenanceResult]:
    """Asks for the occurrences of a content."""
    request = service.ContentFindAllRequest(id=check_id(id), limit=check_limit(limit))
    return Query("content_find_all", [request], "results", conversion.to_results)


def _parts(ids: Iterable[Id]) -> Iterator[list[Id]]:
    """Yields the ids, each once, in lists that fit a message. Checks all of them before it yields the first list."""
    values = list(ids)
    check_each(are_ids, check_id, values)
    unique = list(dict.fromkeys(values))
    for start in range(0, len(unique), IDS_A_REQUEST):
        yield unique[start : start + IDS_A_REQUEST]


def read_one(session: GatewaySession, method: str, request: Message) -> Any:
    """Returns the response to a unary read.

    Raises:
        CallError: the call failed.
    """
    retry = session.retry()
    while True:
        try:
            return session.call(method, request, session.settings.read_timeout_s)
        except grpc.RpcError as error:
            failure = session.failure(error, method)
            if not retry.pause(failure):
                raise failure from error


def read(session: GatewaySession, query: Query[Row], *, rows_may_repeat: bool) -> Generator[Iterable[Row], None, None]:
    """Yields the rows of each response, in bounded memory. Closing the generator cancels the call.

    Args:
        session: the session.
        query: what to ask.
        rows_may_repeat: whether a call is repeated even if it has given rows, which then come twice.

    Raises:
        CallError: a call failed.
    """
    for request in query.requests:
        retry, is_complete = session.retry(), False
        while not is_complete:
            may_repeat = True
            call = session.call(query.method, request, session.settings.stream_timeout_s)
            try:
                for response in call:
                    may_repeat = rows_may_repeat
                    yield query.rows(getattr(response, query.field))
                is_complete = True
            except grpc.RpcError as error:
                failure = session.failure(error, query.method)
                if not may_repeat or not retry.pause(failure):
                    raise failure from error
            finally:
                call.cancel()


def stream(session: GatewaySession, query: Query[Row]) -> Generator[Row, None, None]:
    """Yields the rows of an answer, each once. Closing the generator cancels the call. Raises as `read` does."""
    with closing(read(session, query, rows_may_repeat=False)) as responses:
        for rows in responses:
            yield from rows
