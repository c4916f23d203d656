"""A write that is given up in the middle."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from provgate.v1 import model_pb2, provenance_storage_pb2
from provgate_broker.amqp.connection import AmqpParameters
from provgate_broker.topology.policy import RangePolicy
from provgate_gateway.metrics import GatewayMetrics
from provgate_gateway.publish.dispatcher import Dispatcher
from provgate_gateway.rpc.requests import CONTENT_ADD, LOCATION_ADD, ORIGIN_ADD, REVISION_ADD, MessageKind
from provgate_gateway.write.call import WriteCall, WritePolicy
from provgate_gateway.write.flow_control import MESSAGE_MAX_BYTES, CrowdedError, FlowControl, Load
from provgate_gateway.write.intake import Intake
from provgate_gateway.write.splitting import Package

BODY = provenance_storage_pb2.ContentAddRequest(contents=[model_pb2.Content(id=b"x" * 20)]).SerializeToString()


class ServerCall:
    """One without a deadline, of a client that sends one message and half-closes where it is told to."""

    def __init__(self, *, half_closes: bool) -> None:
        self._messages: list[object] = [BODY, grpc.aio.EOF] if half_closes else [BODY]

    def time_remaining(self) -> None:
        return None

    async def read(self) -> object:
        if not self._messages:
            await asyncio.Event().wait()
        return self._messages.pop(0)


def _packages() -> int:
    return sum(isinstance(found, Package) for found in gc.get_objects())


def test_a_message_that_waits_is_freed_without_the_garbage_collector() -> None:
    async def main() -> None:
        flow_control = FlowControl(Load(10, 10_000), Load(1, 10_000_000))
        others = flow_control.share()
        await others.admit(Load(1, 1))
        metrics = GatewayMetrics(CollectorRegistry())
        dispatcher = Dispatcher(AmqpParameters("amqp://nowhere/", 10), "test", metrics)
        call = WriteCall(dispatcher, flow_control.share(), WritePolicy(60, 0, 60, Intake(RangePolicy(), 10)), metrics)
        responses = call.responses(CONTENT_ADD, ServerCall(half_closes=False))
        await anext(responses)
        assert _packages() == 1
        call.close()
        for _ in range(5):
            await asyncio.sleep(0)
        assert _packages() == 0

    gc.collect()
    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()


def test_a_message_that_is_admitted_as_its_call_closes_is_not_submitted() -> None:
    async def main() -> None:
        flow_control = FlowControl(Load(10, 10_000), Load(1, 10_000_000))
        others = flow_control.share()
        await others.admit(Load(1, 1))
        metrics = GatewayMetrics(CollectorRegistry())
        dispatcher = Dispatcher(AmqpParameters("amqp://nowhere/", 10), "test", metrics)
        call = WriteCall(dispatcher, flow_control.share(), WritePolicy(60, 0, 60, Intake(RangePolicy(), 10)), metrics)
        responses = call.responses(CONTENT_ADD, ServerCall(half_closes=False))
        await anext(responses)
        others.release(Load(1, 1))
        call.close()
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(dispatcher._ledger) == 0
        assert flow_control.in_hand == Load()

    asyncio.run(main())


def test_a_call_that_is_acked_while_its_client_pauses_ends_well() -> None:
    async def main() -> None:
        metrics = GatewayMetrics(CollectorRegistry())
        flow_control = FlowControl(Load(10, 10_000_000), Load(10, 10_000_000))
        dispatcher = Dispatcher(AmqpParameters("amqp://nowhere/", 10), "test", metrics)
        policy = WritePolicy(0.05, 0, 0.05, Intake(RangePolicy(), 10))
        call = WriteCall(dispatcher, flow_control.share(), policy, metrics)
        responses = call.responses(CONTENT_ADD, ServerCall(half_closes=True))
        assert (await anext(responses)).received_count == 1
        (package,) = (found for found in gc.get_objects() if isinstance(found, Package))
        call.published(package)
        call.acked(package)
        # The client takes the next response later than a call may go without progress.
        await asyncio.sleep(0.2)
        assert [progress.acked_count async for progress in responses] == [1]

    asyncio.run(main())


def _messages(count: int) -> list[tuple[MessageKind[Any], Any]]:
    ids = [number.to_bytes(2, "big") * 10 for number in range(0, 65536, 65536 // count)]
    return [
        (CONTENT_ADD, provenance_storage_pb2.ContentAddRequest(contents=[model_pb2.Content(id=id) for id in ids])),
        (REVISION_ADD, provenance_storage_pb2.RevisionAddRequest(revisions=[model_pb2.Revision(id=id) for id in ids])),
        (ORIGIN_ADD, provenance_storage_pb2.OriginAddRequest(origins=[model_pb2.Origin(id=id, url="a") for id in ids])),
        (LOCATION_ADD, provenance_storage_pb2.LocationAddRequest(paths=[b""] * count)),
        (LOCATION_ADD, provenance_storage_pb2.LocationAddRequest(paths=[b"%d" % number for number in range(count)])),
    ]


@pytest.mark.parametrize("count", [1, 32, 1024, 32768])
def test_a_message_that_was_read_is_not_refused_for_what_its_packages_take(count: int) -> None:
    async def main() -> list[str]:
        intake, refused = Intake(RangePolicy(), 5000), []
        for kind, request in _messages(count):
            body = request.SerializeToString()

            async def message(body: bytes = body) -> object:
                return body

            # What the message leaves of its room is given to others at once: as much as they can use.
            flow_control = FlowControl(Load(10**6, 2**30), Load(10**6, 2 * MESSAGE_MAX_BYTES * 4))
            share = flow_control.share()
            assert await share.next_message(message, kind.growth) == body
            await flow_control.reserve(
                flow_control.share("other"), 2 * MESSAGE_MAX_BYTES * 4 - flow_control.waiting_bytes
            )
            load = Load()
            for package in await intake.packages(body, kind):
                load.add(package.load)
            try:
                await share.admit(load)
            except CrowdedError:
                refused.append(f"{kind.operation(request).method}: {len(body)} bytes become {load.size_bytes}")
        intake.close()
        return refused

    assert asyncio.run(main()) == []
