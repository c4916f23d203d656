"""The service: each RPC takes its request apart, and hands the rest to a write call or a read."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from provgate.v1 import provenance_storage_pb2 as pb2
from provgate.v1 import provenance_storage_pb2_grpc as pb2_grpc
from provgate_gateway import answers, errors, requests
from provgate_gateway.call_end import at_end_of_call
from provgate_gateway.call_slots import CallSlots
from provgate_gateway.calls_in_flight import CallsInFlight
from provgate_gateway.decoding import Undecodable
from provgate_gateway.errors import CallError
from provgate_gateway.requests import MessageKind
from provgate_gateway.streamed_read import StreamedReads
from provgate_gateway.unary_read import UnaryReads
from provgate_gateway.write_call import WriteCall
from provgate_storage.local import LocalStorage, RowStream
from provgate_storage.values import check_id, check_limit

logger = logging.getLogger(__name__)

T = TypeVar("T")
M = TypeVar("M", bound=Message)

Query: TypeAlias = Callable[[], RowStream[T]]
"""Opens a stream; called on a thread."""


class ProvenanceStorageServicer(pb2_grpc.ProvenanceStorageServicer):
    """Serves `provgate.v1.ProvenanceStorage` on one event loop.

    Args:
        new_write: makes a write call.
        storage: what is read from; None where reads are not available.
        slots: bounds the calls that run at once, streamed reads excepted.
        unary_reads: runs unary reads.
        streamed_reads: runs streamed reads.
        in_flight: told of every call.
    """

    def __init__(
        self,
        new_write: Callable[[], WriteCall],
        storage: LocalStorage | None,
        slots: CallSlots,
        unary_reads: UnaryReads,
        streamed_reads: StreamedReads,
        in_flight: CallsInFlight,
    ) -> None:
        self._new_write = new_write
        self._storage = storage
        self._slots = slots
        self._unary_reads = unary_reads
        self._streamed_reads = streamed_reads
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

    async def ContentGet(self, request: pb2.ContentGetRequest, context: Any) -> AsyncIterator[pb2.ContentGetResponse]:
        query = lambda storage: partial(storage.content_get_stream, requests.ids(request.ids))
        to_response = lambda rows: answers.content_columns(rows) if request.columns else answers.contents(rows)
        async for response in self._stream(request, query, to_response, context):
            yield response

    async def DirectoryGet(
        self, request: pb2.DirectoryGetRequest, context: Any
    ) -> AsyncIterator[pb2.DirectoryGetResponse]:
        query = lambda storage: partial(storage.directory_get_stream, requests.ids(request.ids))
        to_response = lambda rows: answers.directory_columns(rows) if request.columns else answers.directories(rows)
        async for response in self._stream(request, query, to_response, context):
            yield response

    async def RevisionGet(
        self, request: pb2.RevisionGetRequest, context: Any
    ) -> AsyncIterator[pb2.RevisionGetResponse]:
        query = lambda storage: partial(storage.revision_get_stream, requests.ids(request.ids))
        async for response in self._stream(request, query, answers.revisions, context):
            yield response

    async def OriginGet(self, request: pb2.OriginGetRequest, context: Any) -> AsyncIterator[pb2.OriginGetResponse]:
        query = lambda storage: partial(storage.origin_get_stream, requests.ids(request.ids))
        async for response in self._stream(request, query, answers.origins, context):
            yield response

    async def RelationGet(
        self, request: pb2.RelationGetRequest, context: Any
    ) -> AsyncIterator[pb2.RelationGetResponse]:
        def query(storage: LocalStorage) -> Query[Any]:
            relation = requests.relation_type(request.relation)
            return partial(storage.relation_get_stream, relation, requests.ids(request.ids), request.reverse)

        async for response in self._stream(request, query, answers.relations, context):
            yield response

    async def RelationGetAll(
        self, request: pb2.RelationGetAllRequest, context: Any
    ) -> AsyncIterator[pb2.RelationGetAllResponse]:
        query = lambda storage: partial(storage.relation_get_all_stream, requests.relation_type(request.relation))
        async for response in self._stream(request, query, answers.all_relations, context):
            yield response

    async def EntityGetAll(
        self, request: pb2.EntityGetAllRequest, context: Any
    ) -> AsyncIterator[pb2.EntityGetAllResponse]:
        query = lambda storage: partial(storage.entity_get_all_stream, requests.entity_type(request.entity))
        async for response in self._stream(request, query, answers.entities, context):
            yield response

    async def LocationGetAll(
        self, request: pb2.LocationGetAllRequest, context: Any
    ) -> AsyncIterator[pb2.LocationGetAllResponse]:
        query = lambda storage: storage.location_get_all_stream
        async for response in self._stream(request, query, answers.locations, context):
            yield response

    async def ContentFindAll(
        self, request: pb2.ContentFindAllRequest, context: Any
    ) -> AsyncIterator[pb2.ContentFindAllResponse]:
        def query(storage: LocalStorage) -> Query[Any]:
            id = requests.checked(check_id, request.id, "id")
            limit = requests.checked(check_limit, request.limit if request.HasField("limit") else None, "limit")
            return partial(storage.content_find_all_stream, id, limit)

        async for response in self._stream(request, query, answers.occurrences, context):
            yield response

    async def ContentFindFirst(
        self, request: pb2.ContentFindFirstRequest, context: Any
    ) -> pb2.ContentFindFirstResponse:
        async with self._call(context):
            storage = self._readable(request)
            id = requests.checked(check_id, request.id, "id")
            with self._slots.take():
                return answers.first(await self._unary_reads.run(lambda: storage.content_find_first(id)))

    async def WithPath(self, request: pb2.WithPathRequest, context: Any) -> pb2.WithPathResponse:
        async with self._call(context):
            return pb2.WithPathResponse(with_path=self._readable(request).with_path())

    async def _write(self, kind: MessageKind[Any], context: Any) -> AsyncIterator[pb2.AddProgress]:
        write = self._new_write()
        async with self._call(context, write):
            write.hold(self._slots.take())
            # A cancelled RPC may leave this generator suspended: what it holds is given back by the callback.
            at_end_of_call(write.close)
            async for progress in write.responses(kind, context):
                yield progress

    async def _stream(
        self,
        request: Message,
        query: Callable[[LocalStorage], Query[T]],
        to_response: Callable[[list[T]], M],
        context: Any,
    ) -> AsyncIterator[M]:
        async with self._call(context):
            open_stream = query(self._readable(request))
            async for response in self._streamed_reads.responses(open_stream, to_response, at_end_of_call):
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

    def _readable(self, request: object) -> LocalStorage:
        if isinstance(request, Undecodable):
            raise errors.malformed()
        if self._storage is None:
            raise errors.reads_unavailable()
        return self._storage


def _counts(write: WriteCall | None) -> Mapping[str, str]:
    return {} if write is None else write.counts
