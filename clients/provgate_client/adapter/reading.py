"""Reads, unary and streamed, repeated while nothing of the answer was given away."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import grpc

from provgate.v1 import provenance_storage_pb2 as service
from provgate_client.adapter import conversion
from provgate_client.adapter.session import GatewaySession
from provgate_storage.model import EntityType, Id, Path, ProvenanceResult, RelationData, RelationType, RevisionData
from provgate_storage.rows.bulk import are_ids, check_each
from provgate_storage.rows.values import check_entity, check_id, check_limit, check_relation

Row = TypeVar("Row")

IDS_A_REQUEST = 10_000


@dataclass(frozen=True, slots=True)
class Query(Generic[Row]):
    """A read.

    Attributes:
        method: the interface's method.
        rpc: the RPC behind it.
        requests: the requests that together ask for everything; none where nothing is asked.
        rows: returns the rows of one chunk.
    """

    method: str
    rpc: str
    requests: list[Any]
    rows: Callable[[Any], Iterable[Row]]


def content_get(ids: Iterable[Id]) -> Query[tuple[Id, datetime]]:
    """Asks for the dates of contents."""
    requests = [service.ContentGetRequest(ids=part, columns=True) for part in _parts(ids)]
    return Query("content_get", "ContentGet", requests, lambda chunk: conversion.to_dates(chunk.columns))


def directory_get(ids: Iterable[Id]) -> Query[tuple[Id, datetime]]:
    """Asks for the dates of directories."""
    requests = [service.DirectoryGetRequest(ids=part, columns=True) for part in _parts(ids)]
    return Query("directory_get", "DirectoryGet", requests, lambda chunk: conversion.to_dates(chunk.columns))


def revision_get(ids: Iterable[Id]) -> Query[tuple[Id, RevisionData]]:
    """Asks for dates and preferred origins of revisions."""
    requests = [service.RevisionGetRequest(ids=part) for part in _parts(ids)]
    return Query("revision_get", "RevisionGet", requests, lambda chunk: conversion.to_revisions(chunk.revisions))


def origin_get(ids: Iterable[Id]) -> Query[tuple[Id, str]]:
    """Asks for the URLs of origins."""
    requests = [service.OriginGetRequest(ids=part) for part in _parts(ids)]
    return Query("origin_get", "OriginGet", requests, lambda chunk: conversion.to_origins(chunk.origins))


def relation_get(relation: RelationType, ids: Iterable[Id], reverse: bool) -> Query[tuple[Id, RelationData]]:
    """Asks for the rows of a relation that start, or end, at ids."""
    number = conversion.RELATIONS[check_relation(relation)]
    requests = [service.RelationGetRequest(relation=number, ids=part, reverse=bool(reverse)) for part in _parts(ids)]
    return Query("relation_get", "RelationGet", requests, lambda chunk: conversion.to_relations(chunk.relations))


def relation_get_all(relation: RelationType) -> Query[tuple[Id, RelationData]]:
    """Asks for a whole relation."""
    request = service.RelationGetAllRequest(relation=conversion.RELATIONS[check_relation(relation)])
    return Query(
        "relation_get_all", "RelationGetAll", [request], lambda chunk: conversion.to_relations(chunk.relations)
    )


def entity_get_all(entity: EntityType) -> Query[Id]:
    """Asks for the ids of all entities of a type."""
    request = service.EntityGetAllRequest(entity=conversion.ENTITIES[check_entity(entity)])
    return Query("entity_get_all", "EntityGetAll", [request], lambda chunk: chunk.ids)


def location_get_all() -> Query[Path]:
    """Asks for all paths."""
    return Query("location_get_all", "LocationGetAll", [service.LocationGetAllRequest()], lambda chunk: chunk.paths)


def content_find_all(id: Id, limit: int | None) -> Query[ProvenanceResult]:
    """Asks for the occurrences of a content."""
    request = service.ContentFindAllRequest(id=check_id(id), limit=check_limit(limit))
    return Query(
        "content_find_all", "ContentFindAll", [request], lambda chunk: map(conversion.to_result, chunk.results)
    )


def _parts(ids: Iterable[Id]) -> Iterator[list[Id]]:
    """Yields the ids, each once, in lists that fit a message. All are checked before the first is yielded."""
    values = list(ids)
    check_each(are_ids, check_id, values)
    unique = list(dict.fromkeys(values))
    for start in range(0, len(unique), IDS_A_REQUEST):
        yield unique[start : start + IDS_A_REQUEST]


def read_one(session: GatewaySession, rpc: str, request: Any, method: str) -> Any:
    """Returns the response to a unary read.

    Raises:
        CallError: the call failed.
    """

    def call_once() -> Any:
        try:
            return session.rpc(rpc)(request, timeout=session.settings.read_timeout_s)
        except grpc.RpcError as error:
            raise session.failure(error, method) from error

    return session.repeat(call_once)


def gather(session: GatewaySession, query: Query[Row], add: Callable[[Iterable[Row]], None]) -> None:
    """Gives every chunk of the answer to `add`, which must not mind to see a row twice: after a repeated call it does.

    Raises:
        CallError: a call failed.
    """
    for request in query.requests:
        session.repeat(lambda request=request: _gather_once(session, query, request, add))  # type: ignore[misc]


def stream(session: GatewaySession, query: Query[Row]) -> Generator[Row, None, None]:
    """Yields the rows of the answer, in bounded memory. Closing the generator cancels the RPC.

    Raises:
        CallError: a call failed; once a row of it was yielded, it is not repeated.
    """
    for request in query.requests:
        call, chunk = session.repeat(lambda request=request: _begin(session, query, request))  # type: ignore[misc]
        try:
            while chunk is not None:
                yield from query.rows(chunk)
                chunk = _next(session, query, call)
        finally:
            call.cancel()


def _gather_once(
    session: GatewaySession, query: Query[Row], request: Any, add: Callable[[Iterable[Row]], None]
) -> None:
    call, chunk = _begin(session, query, request)
    try:
        while chunk is not None:
            add(query.rows(chunk))
            chunk = _next(session, query, call)
    finally:
        call.cancel()


def _begin(session: GatewaySession, query: Query[Any], request: Any) -> tuple[Any, Any]:
    """Returns a new call and its first chunk; None for the chunk where the answer is empty."""
    call = session.rpc(query.rpc)(request, timeout=session.settings.stream_timeout_s)
    try:
        return call, _next(session, query, call)
    except BaseException:
        call.cancel()
        raise


def _next(session: GatewaySession, query: Query[Any], call: Any) -> Any:
    try:
        return next(call, None)
    except grpc.RpcError as error:
        raise session.failure(error, query.method) from error
