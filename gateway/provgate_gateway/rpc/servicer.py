"""The service: each RPC takes its request apart, and hands the rest to a write call or a read."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from provgate.v1 import provenance_storage_pb2 as pb2
from provgate.v1 import provenance_storage_pb2_grpc as pb2_grpc
from provgate_gateway import errors
from provgate_gateway.errors import CallError
from provgate_gateway.read.streamed import Answer, StreamedReads
from provgate_gateway.read.unary import UnaryReads
from provgate_gateway.rpc import requests
from provgate_gateway.rpc import responses as answers
from provgate_gateway.rpc.call_limits import CallLimit, caller_of
from provgate_gateway.rpc.handler_wrappers import CallsInFlight, at_end_of_call
from provgate_gateway.rpc.requests import MessageKind
from provgate_gateway.write.call import WriteCall
from provgate_storage.database.local import LocalStorage
from provgate_storage.model import ProvenanceResult
from provgate_storage.rows.values import check_id, check_limit

logger = logging.getLogger(__name__)

T = TypeVar("T")
Q = TypeVar("Q", bound=Message)
M = TypeVar("M", bound=Message)


class ProvenanceStorageServicer(pb2_grpc.ProvenanceStorageServicer):
    """Serves `provgate.v1.ProvenanceStorage` on one event loop. Requests come as bytes (`decoding`).

    Args:
        new_write: makes a write call of a caller.
        storage: what is read from; None where reads are not available.
        writes: bounds the writes; each class of reads is bounded by what runs it.
        unary_reads: runs ContentFindFirst.
        by_id_reads: runs reads by id.
        listings: runs reads of everything of a kind, and of all occurrences.
        in_flight: told of every call.
    """

    def __init__(
        self,
        new_write: Callable[[str], WriteCall],
        storage: LocalStorage | None,
        writes: CallLimit,
        unary_reads: UnaryReads[ProvenanceResult | None],
        by_id_reads: StreamedReads,
        listings: StreamedReads,
        in_flight: CallsInFlight,
    ) -> None:
        self._new_write = new_write
        self._storage = storage
        self._writes = writes
        self._unary_reads = unary_reads
        self._by_id_reads = by_id_reads
        self._listings = listings
        self._in_flight = in_flight

    async def ContentAdd(self, request_iterator: Any, context: Any) -> AsyncIterator[pb2.ContentAddResponse]:
        async for progress in self._write(requests.CONTENT_ADD, context):
            yield pb2.ContentAddResponse(progress=progress)

    async def DirectoryAdd(self, request_iterator: Any, context: Any) -> AsyncIterator[pb2.DirectoryAddResponse]:
        async for progress in self._write(requests.DIRECTORY_ADD, context):
            yield pb2.DirectoryAddResponse(progress=progress)

    async def RevisionAdd(self, request_iterator: Any, context: Any) -> AsyncIterator[pb2.RevisionAddResponse]:
        async for progress in self._write(requests.REVISION_ADD, context):
            yield pb2.RevisionAddResponse(progress=progress)

    async def OriginAdd(self, request_iterator: Any, context: Any) -> AsyncIterator[pb2.OriginAddResponse]:
        async for progress in self._write(requests.ORIGIN_ADD, context):
            yield pb2.OriginAddResponse(progress=progress)

    async def LocationAdd(self, request_iterator: Any, context: Any) -> AsyncIterator[pb2.LocationAddResponse]:
        async for progress in self._write(requests.LOCATION_ADD, context):
            yield pb2.LocationAddResponse(progress=progress)

    async def RelationAdd(self, request_iterator: Any, context: Any) -> AsyncIterator[pb2.RelationAddResponse]:
        async for progress in self._write(requests.RELATION_ADD, context):
            yield pb2.RelationAddResponse(progress=progress)

    async def ContentGet(self, body: Any, context: Any) -> AsyncIterator[pb2.ContentGetResponse]:
        def read(storage: LocalStorage, request: pb2.ContentGetRequest) -> Answer[Any, pb2.ContentGetResponse]:
            to_response = answers.content_columns if request.columns else answers.contents
            return storage.content_get_stream(requests.ids(request.ids)), to_response

        async for response in self._stream(self._by_id_reads, body, pb2.ContentGetRequest, read, context):
            yield response

    async def DirectoryGet(self, body: Any, context: Any) -> AsyncIterator[pb2.DirectoryGetResponse]:
        def read(storage: LocalStorage, request: pb2.DirectoryGetRequest) -> Answer[Any, pb2.DirectoryGetResponse]:
            to_response = answers.directory_columns if request.columns else answers.directories
            return storage.directory_get_stream(requests.ids(request.ids)), to_response

        async for response in self._stream(self._by_id_reads, body, pb2.DirectoryGetRequest, read, context):
            yield response

    async def RevisionGet(self, body: Any, context: Any) -> AsyncIterator[pb2.RevisionGetResponse]:
        def read(storage: LocalStorage, request: pb2.RevisionGetRequest) -> Answer[Any, pb2.RevisionGetResponse]:
            return storage.revision_get_stream(requests.ids(request.ids)), answers.revisions

        async for response in self._stream(self._by_id_reads, body, pb2.RevisionGetRequest, read, context):
            yield response

    async def OriginGet(self, body: Any, context: Any) -> AsyncIterator[pb2.OriginGetResponse]:
        def read(storage: LocalStorage, request: pb2.OriginGetRequest) -> Answer[Any, pb2.OriginGetResponse]:
            return storage.origin_get_stream(requests.ids(request.ids)), answers.origins

        async for response in self._stream(self._by_id_reads, body, pb2.OriginGetRequest, read, context):
            yield response

    async def RelationGet(self, body: Any, context: Any) -> AsyncIterator[pb2.RelationGetResponse]:
        def read(storage: LocalStorage, request: pb2.RelationGetRequest) -> Answer[Any, pb2.RelationGetResponse]:
            relation = requests.relation_type(request.relation)
            stream = storage.relation_get_stream(relation, requests.ids(request.ids), request.reverse)
            return stream, answers.relations

        async for response in self._stream(self._by_id_reads, body, pb2.RelationGetRequest, read, context):
            yield response

    async def RelationGetAll(self, body: Any, context: Any) -> AsyncIterator[pb2.RelationGetAllResponse]:
        def read(storage: LocalStorage, request: pb2.RelationGetAllRequest) -> Answer[Any, pb2.RelationGetAllResponse]:
            return storage.relation_get_all_stream(requests.relation_type(request.relation)), answers.all_relations

        async for response in self._stream(self._listings, body, pb2.RelationGetAllRequest, read, context):
            yield response

    async def EntityGetAll(self, body: Any, context: Any) -> AsyncIterator[pb2.EntityGetAllResponse]:
        def read(storage: LocalStorage, request: pb2.EntityGetAllRequest) -> Answer[Any, pb2.EntityGetAllResponse]:
            return storage.entity_get_all_stream(requests.entity_type(request.entity)), answers.entities

        async for response in self._stream(self._listings, body, pb2.EntityGetAllRequest, read, context):
            yield response

    async def LocationGetAll(self, body: Any, context: Any) -> AsyncIterator[pb2.LocationGetAllResponse]:
        def read(storage: LocalStorage, _: pb2.LocationGetAllRequest) -> Answer[Any, pb2.LocationGetAllResponse]:
            return storage.location_get_all_stream(), answers.locations

        async for response in self._stream(self._listings, body, pb2.LocationGetAllRequest, read, context):
            yield response

    async def ContentFindAll(self, body: Any, context: Any) -> AsyncIterator[pb2.ContentFindAllResponse]:
        def read(storage: LocalStorage, request: pb2.ContentFindAllRequest) -> Answer[Any, pb2.ContentFindAllResponse]:
            id = requests.checked(check_id, request.id, "id")
            limit = requests.checked(check_limit, request.limit if request.HasField("limit") else None, "limit")
            return storage.content_find_all_stream(id, limit), answers.occurrences

        async for response in self._stream(self._listings, body, pb2.ContentFindAllRequest, read, context):
            yield response

    async def ContentFindFirst(self, body: Any, context: Any) -> pb2.ContentFindFirstResponse:
        async with self._call(context):
            storage = self._readable()
            caller = caller_of(context)
            with self._unary_reads.enter(caller, len(body)):
                id = requests.checked(check_id, requests.decoded(pb2.ContentFindFirstRequest, body).id, "id")
                return answers.first(await self._unary_reads.run(caller, id, lambda: storage.content_find_first(id)))

    async def WithPath(self, body: Any, context: Any) -> pb2.WithPathResponse:
        async with self._call(context):
            requests.decoded(pb2.WithPathRequest, body)
            return pb2.WithPathResponse(with_path=self._readable().with_path())

    async def _write(self, kind: MessageKind[Any], context: Any) -> AsyncIterator[pb2.AddProgress]:
        caller = caller_of(context)
        write = self._new_write(caller)
        async with self._call(context, write):
            write.hold(self._writes.enter(caller))
            # A cancelled RPC may leave this generator suspended: what it holds is given back by the callback.
            at_end_of_call(write.close)
            async for progress in write.responses(kind, context):
                yield progress

    async def _stream(
        self,
        reads: StreamedReads,
        body: bytes,
        kind: type[Q],
        read: Callable[[LocalStorage, Q], Answer[T, M]],
        context: Any,
    ) -> AsyncIterator[M]:
        async with self._call(context):
            storage = self._readable()
            caller = caller_of(context)
            # A cancelled RPC may leave this generator suspended: what it holds is given back by callbacks.
            at_end_of_call(reads.enter(caller, len(body)).release)
            open_read = lambda: read(storage, requests.decoded(kind, body))
            async for response in reads.responses(caller, open_read, at_end_of_call):
                yield response

    @asynccontextmanager
    async def _call(self, context: Any, write: WriteCall | None = None) -> AsyncIterator[None]:
        """Counts the call as running, and ends it with the status of what is raised."""
        if write is None:
            self._in_flight.add()
        else:
            self._in_flight.add(write.shut_down)
        try:
            yield
        except CallError as error:
            await context.abort_with_status(error.status(_counts(write)))
        except grpc.aio.AbortError:
            raise
        except Exception:
            logger.exception("a call fails", extra={"action": "call.fail"})
            await context.abort_with_status(errors.internal().status(_counts(write)))

    def _readable(self) -> LocalStorage:
        if self._storage is None:
            raise errors.reads_unavailable()
        return self._storage


def _counts(write: WriteCall | None) -> Mapping[str, str]:
    return {} if write is None else write.counts
