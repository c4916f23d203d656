"""The service: each RPC hands its messages to a write call, or its request to a read."""

# Requests come as bytes (`DecodingInterceptor`), which the generated signatures do not know.
# mypy: disable-error-code="override"

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from provgate.v1 import provenance_storage_pb2 as pb2
from provgate.v1 import provenance_storage_pb2_grpc as pb2_grpc
from provgate_gateway import errors
from provgate_gateway.errors import CallError
from provgate_gateway.read.streamed import Answer, StreamedReads
from provgate_gateway.read.unary import UnaryReads
from provgate_gateway.rpc import requests, responses
from provgate_gateway.rpc.call_limits import CallLimit, caller_of
from provgate_gateway.rpc.handler_wrappers import CallContext, CallsInFlight, at_end_of_call
from provgate_gateway.rpc.requests import MessageKind
from provgate_gateway.write.call import WriteCall
from provgate_storage.database.local import LocalStorage
from provgate_storage.model import Id, Path, ProvenanceResult, RelationData, RevisionData
from provgate_storage.rows.values import check_id, check_limit

logger = logging.getLogger(__name__)

T = TypeVar("T")
Q = TypeVar("Q", bound=Message)
M = TypeVar("M", bound=Message)


Query: TypeAlias = "Callable[[ProvenanceStorageServicer, LocalStorage, Q], Answer[T, M]]"
StreamedRpc: TypeAlias = "Callable[[ProvenanceStorageServicer, bytes, CallContext], AsyncIterator[M]]"


def _streamed(request_type: type[Q], *, by_id: bool) -> Callable[[Query[Q, T, M]], StreamedRpc[M]]:
    """Makes the RPC of a streamed read from what it asks the storage, on a thread, when the read has its turn.

    Args:
        request_type: of the RPC.
        by_id: whether it is a read by id; otherwise it is a listing.
    """

    def decorate(query: Query[Q, T, M]) -> StreamedRpc[M]:
        async def rpc(self: ProvenanceStorageServicer, body: bytes, context: CallContext) -> AsyncIterator[M]:
            reads = self._by_id_reads if by_id else self._listings
            async with self._call(context):
                storage = self._readable()
                open_read = lambda: query(self, storage, requests.decoded(request_type, body))
                async for response in reads.responses(caller_of(context.peer()), len(body), open_read):
                    yield response

        return rpc

    return decorate


class ProvenanceStorageServicer(pb2_grpc.ProvenanceStorageServicer):
    """Serves `provgate.v1.ProvenanceStorage` on one event loop.

    Args:
        new_write: makes a write call of a caller.
        storage: what is read from; None if reads are not available.
        writes: limits the writes; each class of reads is limited by what runs it.
        unary_reads: runs ContentFindFirst.
        by_id_reads: runs reads by id.
        listings: runs reads of everything of a kind, and of all occurrences.
        in_flight: registers every call.
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

    async def ContentAdd(self, _: object, context: CallContext) -> AsyncIterator[pb2.ContentAddResponse]:
        async for progress in self._write(requests.CONTENT_ADD, context):
            yield pb2.ContentAddResponse(progress=progress)

    async def DirectoryAdd(self, _: object, context: CallContext) -> AsyncIterator[pb2.DirectoryAddResponse]:
        async for progress in self._write(requests.DIRECTORY_ADD, context):
            yield pb2.DirectoryAddResponse(progress=progress)

    async def RevisionAdd(self, _: object, context: CallContext) -> AsyncIterator[pb2.RevisionAddResponse]:
        async for progress in self._write(requests.REVISION_ADD, context):
            yield pb2.RevisionAddResponse(progress=progress)

    async def OriginAdd(self, _: object, context: CallContext) -> AsyncIterator[pb2.OriginAddResponse]:
        async for progress in self._write(requests.ORIGIN_ADD, context):
            yield pb2.OriginAddResponse(progress=progress)

    async def LocationAdd(self, _: object, context: CallContext) -> AsyncIterator[pb2.LocationAddResponse]:
        async for progress in self._write(requests.LOCATION_ADD, context):
            yield pb2.LocationAddResponse(progress=progress)

    async def RelationAdd(self, _: object, context: CallContext) -> AsyncIterator[pb2.RelationAddResponse]:
        async for progress in self._write(requests.RELATION_ADD, context):
            yield pb2.RelationAddResponse(progress=progress)

    @_streamed(pb2.ContentGetRequest, by_id=True)
    def ContentGet(
        self, storage: LocalStorage, request: pb2.ContentGetRequest
    ) -> Answer[tuple[Id, int], pb2.ContentGetResponse]:
        to_response = responses.content_columns if request.columns else responses.contents
        return storage.content_get_stream(requests.ids(request.ids)), to_response

    @_streamed(pb2.DirectoryGetRequest, by_id=True)
    def DirectoryGet(
        self, storage: LocalStorage, request: pb2.DirectoryGetRequest
    ) -> Answer[tuple[Id, int], pb2.DirectoryGetResponse]:
        to_response = responses.directory_columns if request.columns else responses.directories
        return storage.directory_get_stream(requests.ids(request.ids)), to_response

    @_streamed(pb2.RevisionGetRequest, by_id=True)
    def RevisionGet(
        self, storage: LocalStorage, request: pb2.RevisionGetRequest
    ) -> Answer[tuple[Id, RevisionData], pb2.RevisionGetResponse]:
        return storage.revision_get_stream(requests.ids(request.ids)), responses.revisions

    @_streamed(pb2.OriginGetRequest, by_id=True)
    def OriginGet(
        self, storage: LocalStorage, request: pb2.OriginGetRequest
    ) -> Answer[tuple[Id, str], pb2.OriginGetResponse]:
        return storage.origin_get_stream(requests.ids(request.ids)), responses.origins

    @_streamed(pb2.RelationGetRequest, by_id=True)
    def RelationGet(
        self, storage: LocalStorage, request: pb2.RelationGetRequest
    ) -> Answer[tuple[Id, RelationData], pb2.RelationGetResponse]:
        relation = requests.relation_type(request.relation)
        return storage.relation_get_stream(relation, requests.ids(request.ids), request.reverse), responses.relations

    @_streamed(pb2.RelationGetAllRequest, by_id=False)
    def RelationGetAll(
        self, storage: LocalStorage, request: pb2.RelationGetAllRequest
    ) -> Answer[tuple[Id, RelationData], pb2.RelationGetAllResponse]:
        return storage.relation_get_all_stream(requests.relation_type(request.relation)), responses.all_relations

    @_streamed(pb2.EntityGetAllRequest, by_id=False)
    def EntityGetAll(
        self, storage: LocalStorage, request: pb2.EntityGetAllRequest
    ) -> Answer[Id, pb2.EntityGetAllResponse]:
        return storage.entity_get_all_stream(requests.entity_type(request.entity)), responses.entities

    @_streamed(pb2.LocationGetAllRequest, by_id=False)
    def LocationGetAll(
        self, storage: LocalStorage, request: pb2.LocationGetAllRequest
    ) -> Answer[Path, pb2.LocationGetAllResponse]:
        return storage.location_get_all_stream(), responses.locations

    @_streamed(pb2.ContentFindAllRequest, by_id=False)
    def ContentFindAll(
        self, storage: LocalStorage, request: pb2.ContentFindAllRequest
    ) -> Answer[ProvenanceResult, pb2.ContentFindAllResponse]:
        id = requests.checked(check_id, request.id, "id")
        limit = requests.checked(check_limit, request.limit if request.HasField("limit") else None, "limit")
        return storage.content_find_all_stream(id, limit), responses.occurrences

    async def ContentFindFirst(self, body: bytes, context: CallContext) -> pb2.ContentFindFirstResponse:
        async with self._call(context):
            storage = self._readable()
            caller = caller_of(context.peer())
            with self._unary_reads.limit.enter(caller, len(body)):
                id = requests.checked(check_id, requests.decoded(pb2.ContentFindFirstRequest, body).id, "id")
                return responses.first(await self._unary_reads.run(caller, id, lambda: storage.content_find_first(id)))

    async def WithPath(self, body: bytes, context: CallContext) -> pb2.WithPathResponse:
        async with self._call(context):
            requests.decoded(pb2.WithPathRequest, body)
            return pb2.WithPathResponse(with_path=self._readable().with_path())

    @asynccontextmanager
    async def _call(self, context: CallContext, write: WriteCall | None = None) -> AsyncIterator[None]:
        """Registers a call that runs, and ends it with the status of what is raised."""
        self._in_flight.add(None if write is None else write.shut_down)
        try:
            yield
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            if not isinstance(error, CallError):
                logger.exception("a call fails", extra={"action": "call.fail"})
                error = errors.internal()
            await context.abort_with_status(error.status({} if write is None else write.counts))

    def _readable(self) -> LocalStorage:
        """Returns the storage. Raises `CallError` if reads are not available."""
        if self._storage is None:
            raise errors.reads_unavailable()
        return self._storage

    async def _write(self, kind: MessageKind[M], context: CallContext) -> AsyncIterator[pb2.AddProgress]:
        caller = caller_of(context.peer())
        write = self._new_write(caller)
        async with self._call(context, write):
            write.hold(self._writes.enter(caller))
            at_end_of_call(write.close)
            async for progress in write.responses(kind, context):
                yield progress
