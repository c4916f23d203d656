"""A gateway of the tests' own: a real gRPC server over the reference storage, which fails when it is told to."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from provgate.v1 import provenance_storage_pb2 as service
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageServicer, add_ProvenanceStorageServicer_to_server
from provgate_client.adapter import conversion
from provgate_gateway.rpc import requests
from provgate_gateway.rpc import responses as answers
from provgate_storage.model import EntityType, Id, RelationData
from provgate_storage.rows.rows import LOCATION, Row
from provgate_storage.rows.values import to_microseconds
from tests.support.reference import InMemoryProvenanceStorage

ENDLESS = b"\xff" * 20
"""A content of which there is no end of occurrences."""

_RELATIONS = {number: relation for relation, number in conversion.RELATIONS.items()}
_ENTITIES: dict[int, EntityType] = {number: entity for entity, number in conversion.ENTITIES.items()}
_CHUNK = 100


@dataclass(frozen=True)
class Fault:
    """How a call ends instead of with OK, once it has read, stored and, if `acks`, acked so many messages."""

    code: grpc.StatusCode
    after_messages: int = 0
    acks: bool = True
    details: tuple[Any, ...] = ()
    message: str = "told to fail"

    def end(self, context: grpc.ServicerContext) -> None:
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in self.details:
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        context.abort_with_status(rpc_status.to_status(status))


def retry_info(delay_s: float) -> Any:
    delay = Duration()
    delay.FromMilliseconds(round(delay_s * 1000))
    return error_details_pb2.RetryInfo(retry_delay=delay)


@dataclass
class Seen:
    """What reached the gateway.

    Attributes:
        calls: the name of each RPC.
        message_counts: the entries of each message of a write.
        message_bytes: its size.
        ended: set when an RPC has ended before its servicer was done.
    """

    calls: list[str] = field(default_factory=list)
    message_counts: list[int] = field(default_factory=list)
    message_bytes: list[int] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)


class GatewayDouble(ProvenanceStorageServicer):
    """The server. A context manager; `address` is host:port."""

    def __init__(self) -> None:
        self.storage = InMemoryProvenanceStorage()
        self.faults: deque[Fault] = deque()
        self.seen = Seen()
        self.address = ""
        self._server = grpc.server(ThreadPoolExecutor(20), options=[("grpc.so_reuseport", 0)])
        add_ProvenanceStorageServicer_to_server(self, self._server)

    def __enter__(self) -> Self:
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.stop(grace=None).wait()

    def ContentAdd(self, request_iterator: Any, context: Any) -> Iterator[Any]:
        def store(request: Any) -> int:
            return self._store(EntityType.CONTENT, requests.content_rows(request))

        return self._add("ContentAdd", request_iterator, context, store, service.ContentAddResponse)

    def DirectoryAdd(self, request_iterator: Any, context: Any) -> Iterator[Any]:
        def store(request: Any) -> int:
            return self._store(EntityType.DIRECTORY, requests.directory_rows(request))

        return self._add("DirectoryAdd", request_iterator, context, store, service.DirectoryAddResponse)

    def RevisionAdd(self, request_iterator: Any, context: Any) -> Iterator[Any]:
        def store(request: Any) -> int:
            return self._store(EntityType.REVISION, requests.revision_rows(request))

        return self._add("RevisionAdd", request_iterator, context, store, service.RevisionAddResponse)

    def OriginAdd(self, request_iterator: Any, context: Any) -> Iterator[Any]:
        def store(request: Any) -> int:
            return self._store(EntityType.ORIGIN, requests.origin_rows(request))

        return self._add("OriginAdd", request_iterator, context, store, service.OriginAddResponse)

    def LocationAdd(self, request_iterator: Any, context: Any) -> Iterator[Any]:
        def store(request: Any) -> int:
            return self._store(LOCATION, requests.location_rows(request))

        return self._add("LocationAdd", request_iterator, context, store, service.LocationAddResponse)

    def RelationAdd(self, request_iterator: Any, context: Any) -> Iterator[Any]:
        def store(request: Any) -> int:
            return self._store(requests.relation_type(request.relation), requests.relation_rows(request))

        return self._add("RelationAdd", request_iterator, context, store, service.RelationAddResponse)

    def _store(self, name: str, rows: list[Row]) -> int:
        self.storage.write_rows(name, rows)
        return len(rows)

    def _add(
        self, rpc: str, messages: Iterable[Any], context: Any, store: Callable[[Any], int], response: type[Any]
    ) -> Iterator[Any]:
        fault = self._begin(rpc, context)
        received = acked = 0
        if fault is not None and fault.after_messages == 0:
            fault.end(context)
        for number, request in enumerate(messages, start=1):
            count = store(request)
            self.seen.message_counts.append(count)
            self.seen.message_bytes.append(request.ByteSize())
            received += count
            acked += count if fault is None or fault.acks else 0
            yield response(progress={"received_count": received, "published_count": received, "acked_count": acked})
            if fault is not None and number == fault.after_messages:
                fault.end(context)

    def ContentGet(self, request: Any, context: Any) -> Iterator[Any]:
        found = _dates(self.storage.content_get(request.ids))
        yield from map(answers.content_columns, self._read("ContentGet", context, found))

    def DirectoryGet(self, request: Any, context: Any) -> Iterator[Any]:
        found = _dates(self.storage.directory_get(request.ids))
        yield from map(answers.directory_columns, self._read("DirectoryGet", context, found))

    def RevisionGet(self, request: Any, context: Any) -> Iterator[Any]:
        found = self.storage.revision_get(request.ids)
        yield from map(answers.revisions, self._read("RevisionGet", context, list(found.items())))

    def OriginGet(self, request: Any, context: Any) -> Iterator[Any]:
        found = self.storage.origin_get(request.ids)
        yield from map(answers.origins, self._read("OriginGet", context, list(found.items())))

    def RelationGet(self, request: Any, context: Any) -> Iterator[Any]:
        relation = _RELATIONS[request.relation]
        found = self.storage.relation_get(relation, request.ids, request.reverse)
        yield from map(answers.relations, self._read("RelationGet", context, _rows(found)))

    def RelationGetAll(self, request: Any, context: Any) -> Iterator[Any]:
        relation = _RELATIONS[request.relation]
        found = self.storage.relation_get_all(relation)
        yield from map(answers.all_relations, self._read("RelationGetAll", context, _rows(found)))

    def EntityGetAll(self, request: Any, context: Any) -> Iterator[Any]:
        found = self.storage.entity_get_all(_ENTITIES[request.entity])
        yield from map(answers.entities, self._read("EntityGetAll", context, list(found)))

    def LocationGetAll(self, request: Any, context: Any) -> Iterator[Any]:
        yield from map(answers.locations, self._read("LocationGetAll", context, list(self.storage.location_get_all())))

    def ContentFindFirst(self, request: Any, context: Any) -> Any:
        fault = self._begin("ContentFindFirst", context)
        if fault is not None:
            fault.end(context)
        return answers.first(self.storage.content_find_first(request.id))

    def ContentFindAll(self, request: Any, context: Any) -> Iterator[Any]:
        if request.id == ENDLESS:
            yield from self._endless(context)
        limit = request.limit if request.HasField("limit") else None
        found = list(self.storage.content_find_all(request.id, limit))
        yield from map(answers.occurrences, self._read("ContentFindAll", context, found))

    def WithPath(self, request: Any, context: Any) -> Any:
        return service.WithPathResponse(with_path=True)

    def _endless(self, context: Any) -> Iterator[Any]:
        self._begin("ContentFindAll", context)
        while True:
            result = service.ContentFindAllResponse().results.add(content=ENDLESS, revision=ENDLESS, path=b"x" * 4096)
            yield service.ContentFindAllResponse(results=[result] * 10)

    def _read(self, rpc: str, context: Any, found: list[Any]) -> Iterator[list[Any]]:
        fault = self._begin(rpc, context)
        for number, start in enumerate(range(0, len(found), _CHUNK)):
            if fault is not None and number == fault.after_messages:
                fault.end(context)
            yield found[start : start + _CHUNK]
        if fault is not None:
            fault.end(context)

    def _begin(self, rpc: str, context: Any) -> Fault | None:
        self.seen.calls.append(rpc)
        context.add_callback(self.seen.ended.set)
        return self.faults.popleft() if self.faults else None


def _dates(found: Mapping[Id, datetime]) -> list[tuple[Id, int]]:
    return [(entry_id, to_microseconds(date)) for entry_id, date in found.items()]


def _rows(found: Mapping[Id, Iterable[RelationData]]) -> list[tuple[Id, RelationData]]:
    return [(src, data) for src, group in found.items() for data in group]
