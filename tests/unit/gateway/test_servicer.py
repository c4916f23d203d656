"""What the service does before and after a call's own work."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import grpc
import pytest

from provgate.v1.provenance_storage_pb2 import ContentFindFirstRequest
from provgate_gateway.read.unary import UnaryReads
from provgate_gateway.rpc.call_limits import REQUESTS_MAX_BYTES, CallLimit
from provgate_gateway.rpc.handler_wrappers import CallsInFlight
from provgate_gateway.rpc.servicer import ProvenanceStorageServicer
from provgate_storage.database.local import LocalStorage
from provgate_storage.model import ProvenanceResult


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

    async def abort_with_status(self, status: Any) -> None:
        raise grpc.RpcError(status.code.name)


def _request(number: int, size_bytes: int) -> bytes:
    body = ContentFindFirstRequest(id=number.to_bytes(20, "big")).SerializeToString()
    # A field that nobody knows: the message is one all the same.
    return body + b"\xa2\x06\x80\x80\xc0\x01" + bytes(size_bytes)


def test_requests_of_unary_reads_that_wait_are_bounded_by_their_bytes() -> None:
    async def main() -> int:
        storage = Storage()
        limit = CallLimit("unary reads", 1000, 1)
        reads = UnaryReads[ProvenanceResult | None](limit)
        nothing = cast("Any", None)
        servicer = ProvenanceStorageServicer(
            nothing, cast("LocalStorage", storage), nothing, reads, nothing, nothing, CallsInFlight()
        )
        body_bytes = 3 * 1024 * 1024
        calls = [
            asyncio.create_task(servicer.ContentFindFirst(_request(number, body_bytes), Context()))
            for number in range(32)
        ]
        await asyncio.sleep(0)
        waiting_bytes = sum(body_bytes for call in calls if not call.done())
        storage.may_answer.set()
        ended = await asyncio.gather(*calls, return_exceptions=True)
        reads.close()
        refused = [each for each in ended if isinstance(each, grpc.RpcError)]
        assert {str(each) for each in refused} <= {"RESOURCE_EXHAUSTED"}
        return waiting_bytes

    assert asyncio.run(main()) <= REQUESTS_MAX_BYTES


@pytest.mark.parametrize("body", [b"\xff", b""])
def test_a_unary_read_that_is_refused_gives_its_place_back(body: bytes) -> None:
    async def main() -> None:
        nothing = cast("Any", None)
        reads = UnaryReads[ProvenanceResult | None](CallLimit("unary reads", 1, 1))
        servicer = ProvenanceStorageServicer(
            nothing,
            cast("LocalStorage", Storage()),
            nothing,
            reads,
            nothing,
            nothing,
            CallsInFlight(),
        )
        for _ in range(2):
            with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
                await servicer.ContentFindFirst(body, Context())

    asyncio.run(main())
