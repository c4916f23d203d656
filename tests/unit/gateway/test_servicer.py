"""What the service does before and after a call's own work."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Never, cast

import grpc
import pytest

from provgate.v1.provenance_storage_pb2 import ContentFindFirstRequest
from provgate_gateway.read.unary import UnaryReads
from provgate_gateway.rpc.call_limits import REQUESTS_MAX_BYTES, CallLimit
from provgate_gateway.rpc.handler_wrappers import CallContext, CallsInFlight
from provgate_gateway.rpc.servicer import ProvenanceStorageServicer
from provgate_storage.database.local import LocalStorage
from provgate_storage.model import ProvenanceResult
from tests.support.async_tests import on_loop


class Storage:
    """Answers when a test says so."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()

    def content_find_first(self, _id: bytes) -> None:
        assert self.may_answer.wait(60)


class Context:
    """The context of a call of one client."""

    def peer(self) -> str:
        return "ipv4:10.0.0.1:4242"

    async def abort_with_status(self, status: grpc.Status) -> Never:
        raise grpc.RpcError(cast("Any", status).code.name)


CONTEXT = cast("CallContext", Context())


def servicer_of(reads: UnaryReads[ProvenanceResult | None], storage: Storage | None) -> ProvenanceStorageServicer:
    unused = cast("Any", None)
    local = cast("LocalStorage | None", storage)
    return ProvenanceStorageServicer(unused, local, unused, reads, unused, unused, CallsInFlight())


def _request(number: int, size_bytes: int) -> bytes:
    body = ContentFindFirstRequest(id=number.to_bytes(20, "big")).SerializeToString()
    # A field that nobody knows: the message is one all the same.
    return body + b"\xa2\x06\x80\x80\xc0\x01" + bytes(size_bytes)


@on_loop
async def test_requests_of_unary_reads_that_wait_are_bounded_by_their_bytes() -> None:
    storage = Storage()
    reads = UnaryReads[ProvenanceResult | None](CallLimit("unary reads", 1000, 1))
    servicer = servicer_of(reads, storage)
    body_bytes = 3 * 1024 * 1024
    calls = [
        asyncio.create_task(servicer.ContentFindFirst(_request(number, body_bytes), CONTEXT)) for number in range(32)
    ]
    await asyncio.sleep(0)
    waiting_bytes = sum(body_bytes for call in calls if not call.done())
    storage.may_answer.set()
    ended = await asyncio.gather(*calls, return_exceptions=True)
    reads.close()
    assert {str(each) for each in ended if isinstance(each, grpc.RpcError)} == {"RESOURCE_EXHAUSTED"}
    assert waiting_bytes <= REQUESTS_MAX_BYTES


@pytest.mark.parametrize("body", [b"\xff", b""])
@on_loop
async def test_a_unary_read_that_is_refused_gives_its_place_back(body: bytes) -> None:
    servicer = servicer_of(UnaryReads[ProvenanceResult | None](CallLimit("unary reads", 1, 1)), Storage())
    for _ in range(2):
        with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
            await servicer.ContentFindFirst(body, CONTEXT)


@on_loop
async def test_reads_of_a_gateway_without_a_storage_are_unimplemented() -> None:
    servicer = servicer_of(UnaryReads[ProvenanceResult | None](CallLimit("unary reads", 1, 1)), None)
    with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
        await servicer.ContentFindFirst(b"", CONTEXT)
    with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
        await anext(servicer.LocationGetAll(b"", CONTEXT))
