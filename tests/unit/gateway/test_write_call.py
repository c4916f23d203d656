"""A write that is given up in the middle."""

from __future__ import annotations

import asyncio
import gc

import grpc
from prometheus_client import CollectorRegistry

from provgate.v1 import model_pb2, provenance_storage_pb2
from provgate_broker.session import AmqpParameters
from provgate_broker.topology import RangePolicy
from provgate_gateway.dispatcher import Dispatcher
from provgate_gateway.flow_control import FlowControl, Load
from provgate_gateway.intake import Intake
from provgate_gateway.metrics import GatewayMetrics
from provgate_gateway.requests import CONTENT_ADD
from provgate_gateway.splitting import Package
from provgate_gateway.write_call import WriteCall, WritePolicy

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
