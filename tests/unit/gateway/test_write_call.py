"""A write that is given up in the middle."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

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


class WithoutDeadline:
    def time_remaining(self) -> None:
        return None


async def _requests() -> AsyncIterator[bytes]:
    yield BODY
    await asyncio.Event().wait()


def _packages() -> int:
    return sum(isinstance(found, Package) for found in gc.get_objects())


def test_a_message_that_waits_is_freed_without_the_garbage_collector() -> None:
    async def main() -> None:
        flow_control = FlowControl(Load(10, 10_000), Load(1, 10_000))
        others = flow_control.share()
        await others.admit(Load(1, 1))
        metrics = GatewayMetrics(CollectorRegistry())
        dispatcher = Dispatcher(AmqpParameters("amqp://nowhere/", 10), "test", metrics)
        call = WriteCall(dispatcher, flow_control.share(), WritePolicy(60, 0, 60, Intake(RangePolicy(), 10)), metrics)
        responses = call.responses(_requests(), CONTENT_ADD, WithoutDeadline())
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
        flow_control = FlowControl(Load(10, 10_000), Load(1, 10_000))
        others = flow_control.share()
        await others.admit(Load(1, 1))
        metrics = GatewayMetrics(CollectorRegistry())
        dispatcher = Dispatcher(AmqpParameters("amqp://nowhere/", 10), "test", metrics)
        call = WriteCall(dispatcher, flow_control.share(), WritePolicy(60, 0, Intake(RangePolicy(), 10)), metrics)
        responses = call.responses(_requests(), CONTENT_ADD, WithoutDeadline())
        await anext(responses)
        others.release(Load(1, 1))
        call.close()
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(dispatcher._ledger) == 0
        assert flow_control.in_hand == Load()

    asyncio.run(main())
