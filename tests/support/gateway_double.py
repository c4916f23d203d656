"""A gateway for tests of the client: a real gRPC server over the reference storage, which fails on demand."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Self

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from provgate.v1 import provenance_storage_pb2 as service
from provgate.v1.provenance_storage_pb2_grpc import add_ProvenanceStorageServicer_to_server
from provgate_gateway.rpc import requests
from provgate_gateway.rpc import responses as answers
from provgate_storage.model import EntityType, Id, RelationData
from provgate_storage.rows.rows import LOCATION
from provgate_storage.rows.values import to_microseconds
from tests.support.reference import InMemoryProvenanceStorage

ENDLESS: Final = b"\xff" * 20
"""A content with occurrences without end."""

_CHUNK: Final = 100


@dataclass(frozen=True)
class Fault:
    """How a call ends, after it has read, stored and, if `acks`, acked a number of messages."""

    code: grpc.StatusCode
    after_messages: int = 0
    acks: bool = True
    details: tuple[Message, ...] = ()
    message: str = "told to fail"

    def end(self, context: grpc.ServicerContext) -> None:
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in self.details:
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        context.abort_with_status(rpc_status.to_status(status))


def retry_info(delay_s: float) -> Message:
    delay = Duration()
    delay.FromMilliseconds(round(delay_s * 1000))
    message: Message = error_details_pb2.RetryInfo(retry_delay=delay)
    return message


@dataclass
class Seen:
    """What reached the gateway.

    Attributes:
        calls: the name of each RPC.
        message_counts: the entries of each message of a write.
        message_bytes: its size.
        ended: set when an RPC has ended.
    """

    calls: list[str] = field(default_factory=list)
    message_counts: list[int] = field(default_factory=list)
    message_bytes: list[int] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)


class GatewayDouble:
    """The server. A context manager; `address` is host:port."""

    def __init__(self) -> None:
        self.storage = InMemoryProvenanceStorage()
        self.faults: deque[Fault] = deque()
        self.seen = Seen()
        self.address = ""
        self._server = grpc.server(ThreadPoolExecutor(20), options=[("grpc.so_reuseport", 0)])
        servicer: Any = self  # the methods of `_METHODS` are set below
        add_ProvenanceStorageServicer_to_server(servicer, self._server)

    def __enter__(self) -> Self:
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(grace=None).wait()

    def WithPath(self, request: Any, context: grpc.ServicerContext) -> service.WithPathResponse:
        return service.WithPathResponse(with_path=True)

    def ContentFindFirst(self, request: Any, context: grpc.ServicerContext) -> service.ContentFindFirstResponse:
        fault = self.begin("ContentFindFirst", context)
        if fault is not None:
            fault.end(context)
        return answers.first(self.storage.content_find_first(request.id))

    def begin(self, rpc: str, context: grpc.ServicerContext) -> Fault | None:
        self.seen.calls.append(rpc)
        context.add_callback(self.seen.ended.set)
        return self.faults.popleft() if self.faults else None


def _write(rpc: str, name: str | None, rows_of: Callable[[Any], list[Any]]) -> Callable[..., Iterator[Message]]:
    """Returns the method of an RPC that writes; `name` is that of the table, None for the relation of a message."""

    def method(self: GatewayDouble, messages: Iterable[Any], context: grpc.ServicerContext) -> Iterator[Message]:
        fault = self.begin(rpc, context)
        received = acked = 0
        if fault is not None and fault.after_messages == 0:
            fault.end(context)
        for number, request in enumerate(messages, start=1):
            rows = rows_of(request)
            self.storage.write_rows(name or requests.relation_type(request.relation), rows)
            self.seen.message_counts.append(len(rows))
            self.seen.message_bytes.append(request.ByteSize())
            received += len(rows)
            acked += len(rows) if fault is None or fault.acks else 0
            counts = {"received_count": received, "published_count": received, "acked_count": acked}
            yield getattr(service, f"{rpc}Response")(progress=counts)
            if fault is not None and number == fault.after_messages:
                fault.end(context)

    return method


def _read(
    rpc: str, find: Callable[[InMemoryProvenanceStorage, Any], Iterable[Any]], answer: Callable[[list[Any]], Message]
) -> Callable[..., Iterator[Message]]:
    """Returns the method of a streamed read."""

    def method(self: GatewayDouble, request: Any, context: grpc.ServicerContext) -> Iterator[Message]:
        fault = self.begin(rpc, context)
        found = list(find(self.storage, request))
        for number, start in enumerate(range(0, len(found), _CHUNK)):
            if fault is not None and number == fault.after_messages:
                fault.end(context)
            yield answer(found[start : start + _CHUNK])
        if fault is not None:
            fault.end(context)
        while rpc == "ContentFindAll" and request.id == ENDLESS:
            result = service.ContentFindAllResponse().results.add(content=ENDLESS, revision=ENDLESS, path=b"x" * 4096)
            yield service.ContentFindAllResponse(results=[result] * 10)

    return method


def _dates(found: Mapping[Id, datetime]) -> Iterable[tuple[Id, int]]:
    return ((entry_id, to_microseconds(date)) for entry_id, date in found.items())


def _rows(found: Mapping[Id, Iterable[RelationData]]) -> Iterable[tuple[Id, RelationData]]:
    return ((src, data) for src, group in found.items() for data in group)


_METHODS: Final = {
    "ContentAdd": _write("ContentAdd", EntityType.CONTENT, requests.content_rows),
    "DirectoryAdd": _write("DirectoryAdd", EntityType.DIRECTORY, requests.directory_rows),
    "RevisionAdd": _write("RevisionAdd", EntityType.REVISION, requests.revision_rows),
    "OriginAdd": _write("OriginAdd", EntityType.ORIGIN, requests.origin_rows),
    "LocationAdd": _write("LocationAdd", LOCATION, requests.location_rows),
    "RelationAdd": _write("RelationAdd", None, requests.relation_rows),
    "ContentGet": _read("ContentGet", lambda s, r: _dates(s.content_get(r.ids)), answers.content_columns),
    "DirectoryGet": _read("DirectoryGet", lambda s, r: _dates(s.directory_get(r.ids)), answers.directory_columns),
    "RevisionGet": _read("RevisionGet", lambda s, r: s.revision_get(r.ids).items(), answers.revisions),
    "OriginGet": _read("OriginGet", lambda s, r: s.origin_get(r.ids).items(), answers.origins),
    "RelationGet": _read(
        "RelationGet",
        lambda s, r: _rows(s.relation_get(requests.relation_type(r.relation), r.ids, r.reverse)),
        answers.relations,
    ),
    "RelationGetAll": _read(
        "RelationGetAll",
        lambda s, r: _rows(s.relation_get_all(requests.relation_type(r.relation))),
        answers.all_relations,
    ),
    "EntityGetAll": _read(
        "EntityGetAll", lambda s, r: s.entity_get_all(requests.entity_type(r.entity)), answers.entities
    ),
    "LocationGetAll": _read("LocationGetAll", lambda s, r: s.location_get_all(), answers.locations),
    "ContentFindAll": _read(
        "ContentFindAll",
        lambda s, r: s.content_find_all(r.id, r.limit if r.HasField("limit") else None),
        answers.occurrences,
    ),
}
for _rpc, _method in _METHODS.items():
    setattr(GatewayDouble, _rpc, _method)
