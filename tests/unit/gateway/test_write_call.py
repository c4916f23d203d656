"""A write call: its progress, what it fails with, and what it gives back when it ends."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any, cast

import grpc
import pytest
from google.protobuf.message import Message

from provgate.v1 import errors_pb2, model_pb2
from provgate.v1 import provenance_storage_pb2 as pb2
from provgate_broker.topology.policy import RangePolicy
from provgate_broker.wire.package import Nack
from provgate_gateway.errors import CallError
from provgate_gateway.rpc.call_limits import CallLimit
from provgate_gateway.rpc.handler_wrappers import CallContext
from provgate_gateway.rpc.requests import CONTENT_ADD, LOCATION_ADD, ORIGIN_ADD, REVISION_ADD, MessageKind
from provgate_gateway.write.call import WriteCall, WritePolicy
from provgate_gateway.write.flow_control import EntryRate, FlowControl, Load, Quota
from provgate_gateway.write.memory_budget import MESSAGE_MAX_BYTES, MemoryBudgetError
from provgate_gateway.write.splitting import Package, Splitter
from tests.support.async_tests import on_loop, settle, virtually
from tests.support.fake_broker import FakeBroker

NO_PROGRESS_S = 60.0
FIRST_MESSAGE_S = 10.0
WIDE = Load(10**6, 10**9)


def message(count: int, first: int = 0) -> bytes:
    ids = [number.to_bytes(20, "big") for number in range(first, first + count)]
    return pb2.ContentAddRequest(contents=[model_pb2.Content(id=id) for id in ids]).SerializeToString()


class Context:
    """The context of a call whose client sends some messages, and half-closes or sends nothing more."""

    def __init__(self, *messages: bytes, half_closes: bool = True, timeout_s: float | None = None) -> None:
        self._messages: list[object] = [*messages, grpc.aio.EOF] if half_closes else [*messages]
        self._timeout_s = timeout_s

    def time_remaining(self) -> float | None:
        return self._timeout_s

    async def read(self) -> object:
        if not self._messages:
            await asyncio.Event().wait()
        return self._messages.pop(0)


class Write:
    """A write call between a client and a fake broker."""

    def __init__(
        self, *messages: bytes, flow_control: FlowControl | None = None, quota: Quota | None = None, **client: Any
    ) -> None:
        self.broker = FakeBroker()
        self.flow_control = flow_control or FlowControl(WIDE, WIDE)
        self.limit = CallLimit("writes", 1)
        policy = WritePolicy(NO_PROGRESS_S, 0, FIRST_MESSAGE_S, Splitter(RangePolicy(), 10))
        share = self.flow_control.share("caller", quota)
        self.call = WriteCall(self.broker.dispatcher, share, policy, self.broker.metrics)
        self.call.hold(self.limit.enter("caller"))
        self.responses = self.call.responses(CONTENT_ADD, cast("CallContext", Context(*messages, **client)))
        self.loop = asyncio.get_running_loop()

    async def next_counts(self) -> tuple[int, int, int]:
        progress = await anext(self.responses)
        return progress.received_count, progress.published_count, progress.acked_count

    async def fails(self) -> tuple[grpc.StatusCode, str]:
        """Reads the responses until the call fails, and returns its code and reason."""
        with pytest.raises(CallError) as raised:
            async for _ in self.responses:
                pass
        self.check_holds_nothing()
        return raised.value.code, errors_pb2.ErrorReason.Name(raised.value.reason).removeprefix("ERROR_REASON_")

    def check_holds_nothing(self) -> None:
        assert self.flow_control.unacked == Load()
        assert self.flow_control.waiting_bytes == 0
        # Its place is free again.
        self.limit.enter("caller").close()


@virtually
async def test_a_write_responds_with_its_progress_and_ends_when_everything_is_acked() -> None:
    write = Write(message(3), message(2, first=3))
    assert await write.next_counts() == (5, 0, 0)
    write.broker.connect()
    for token in write.broker.tokens:
        write.broker.dispatcher.confirmed(token)
    assert await write.next_counts() == (5, 5, 0)
    write.broker.store_all()
    assert await write.next_counts() == (5, 5, 5)
    assert [each async for each in write.responses] == []
    assert write.call.counts == {"received_count": "5", "published_count": "5", "acked_count": "5"}
    write.check_holds_nothing()


@virtually
async def test_a_write_of_nothing_is_complete() -> None:
    write = Write()
    assert await write.next_counts() == (0, 0, 0)
    assert [each async for each in write.responses] == []
    write.check_holds_nothing()


@pytest.mark.parametrize(
    ("happening", "code", "reason"),
    [
        ("worker refuses", grpc.StatusCode.INVALID_ARGUMENT, "PACKAGE_REFUSED"),
        ("no queue", grpc.StatusCode.FAILED_PRECONDITION, "UNROUTABLE"),
        ("broker refuses", grpc.StatusCode.RESOURCE_EXHAUSTED, "BROKER_REFUSED"),
        ("gateway stops", grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN"),
    ],
)
@virtually
async def test_a_write_fails_with_what_happens_to_one_of_its_packages(
    happening: str, code: grpc.StatusCode, reason: str
) -> None:
    write = Write(message(1), half_closes=False)
    dispatcher = write.broker.dispatcher
    running = asyncio.create_task(dispatcher.run())
    write.broker.connect()
    await write.next_counts()
    (token,) = write.broker.tokens
    match happening:
        case "worker refuses":
            dispatcher.replied(token, Nack("malformed", "not a package", 3))
        case "no queue":
            dispatcher.returned(token, "content", "content_add.unknown.0")
        case "broker refuses":
            dispatcher.nacked(token)
        case "gateway stops":
            write.call.shut_down()
    assert await write.fails() == (code, reason)
    # What comes later is for nobody.
    write.broker.store_all()
    assert write.call.counts["acked_count"] == "0"
    running.cancel()


@virtually
async def test_a_bad_message_fails_the_write_and_earlier_ones_stay_published() -> None:
    write = Write(message(1), b"\xff")
    write.broker.connect()
    assert await write.fails() == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
    assert len(write.broker.tokens) == 1


@pytest.mark.parametrize(
    ("broker", "messages", "code", "reason", "after_s"),
    [
        ("takes packages", [], grpc.StatusCode.DEADLINE_EXCEEDED, "NO_PROGRESS", FIRST_MESSAGE_S),
        ("takes packages", [message(1)], grpc.StatusCode.DEADLINE_EXCEEDED, "NO_PROGRESS", NO_PROGRESS_S),
        ("blocks", [message(1)], grpc.StatusCode.RESOURCE_EXHAUSTED, "BROKER_BLOCKED", NO_PROGRESS_S),
        ("is away", [message(1)], grpc.StatusCode.UNAVAILABLE, "BROKER_UNAVAILABLE", NO_PROGRESS_S),
    ],
)
@virtually
async def test_a_write_without_progress_fails_with_the_cause(
    broker: str, messages: list[bytes], code: grpc.StatusCode, reason: str, after_s: float
) -> None:
    write = Write(*messages, half_closes=False)
    write.broker.publisher.is_connected = broker != "is away"
    write.broker.publisher.is_blocked = broker == "blocks"
    assert await write.fails() == (code, reason)
    assert write.loop.time() == pytest.approx(after_s, abs=0.1)


@virtually
async def test_a_write_that_other_writes_keep_waiting_fails_with_flow_control() -> None:
    flow_control = FlowControl(WIDE, Load(1, 10**9))
    others = flow_control.share("others")
    await others.admit(Load(1, 1))
    write = Write(message(1), flow_control=flow_control)
    write.broker.connect()
    with pytest.raises(CallError, match="too many writes wait") as raised:
        async for _ in write.responses:
            pass
    assert raised.value.reason == errors_pb2.ERROR_REASON_FLOW_CONTROL
    assert raised.value.retry_delay_s == 1


@virtually
async def test_to_wait_for_the_entry_rate_is_no_standstill_and_the_first_message_is_refused_with_the_time() -> None:
    quota = Quota(WIDE, EntryRate(1), 5)
    waiting, refused = Write(message(300), message(1), quota=quota), Write(message(1), quota=quota)
    waiting.broker.connect()
    began_at = waiting.loop.time()
    assert await waiting.next_counts() == (301, 0, 0)
    with pytest.raises(CallError) as raised:
        await refused.next_counts()
    assert raised.value.reason == errors_pb2.ERROR_REASON_PRINCIPAL_LIMIT
    assert raised.value.retry_delay_s == pytest.approx(299, abs=1)
    waiting.broker.store_all()
    assert await waiting.next_counts() == (301, 300, 300)
    storing = asyncio.create_task(waiting.next_counts())
    while len(waiting.broker.tokens) < 31:  # noqa: ASYNC110 - the clock is virtual
        await asyncio.sleep(1)
    assert waiting.loop.time() - began_at == pytest.approx(299, abs=2)
    waiting.broker.store_all()
    assert await storing == (301, 301, 301)


@virtually
async def test_a_write_goes_on_while_there_is_progress() -> None:
    write = Write(*(message(1, first=number) for number in range(5)))
    write.broker.connect()
    assert await write.next_counts() == (5, 0, 0)
    for number, token in enumerate(write.broker.tokens, 1):
        await asyncio.sleep(0.9 * NO_PROGRESS_S)
        write.broker.dispatcher.replied(token, 1)
        assert await write.next_counts() == (5, number, number)


@virtually
async def test_a_write_ends_before_its_deadline_so_that_the_client_gets_its_status() -> None:
    write = Write(message(1), timeout_s=5)
    write.broker.connect()
    assert await write.fails() == (grpc.StatusCode.DEADLINE_EXCEEDED, "NO_PROGRESS")
    assert write.loop.time() == pytest.approx(4.75, abs=0.1)


@virtually
async def test_a_client_that_reads_no_response_holds_nothing_after_the_limit_and_gets_the_status_later() -> None:
    write = Write(message(1), message(1, first=1))
    write.broker.connect()
    await write.next_counts()
    assert write.flow_control.unacked.entry_count == 2
    await asyncio.sleep(NO_PROGRESS_S + 1)
    write.check_holds_nothing()
    assert await write.fails() == (grpc.StatusCode.DEADLINE_EXCEEDED, "NO_PROGRESS")


@virtually
async def test_a_call_that_is_acked_while_its_client_pauses_ends_well() -> None:
    write = Write(message(1))
    write.broker.connect()
    assert await write.next_counts() == (1, 0, 0)
    write.broker.store_all()
    # The client reads the next response later than a call may go without progress.
    await asyncio.sleep(4 * NO_PROGRESS_S)
    write.check_holds_nothing()
    assert [progress.acked_count async for progress in write.responses] == [1]


async def waiting_write() -> tuple[Write, Callable[[], None]]:
    """Returns a write that waits for its admission, and what admits it."""
    flow_control = FlowControl(Load(10, 10_000), Load(1, 10_000_000))
    others = flow_control.share()
    await others.admit(Load(1, 1))
    return Write(message(1), half_closes=False, flow_control=flow_control), lambda: others.release(Load(1, 1))


@virtually
async def test_a_message_that_is_admitted_as_its_call_closes_is_not_submitted() -> None:
    write, admit = await waiting_write()
    await anext(write.responses)
    admit()
    write.call.close()
    await settle()
    write.broker.connect()
    assert write.broker.tokens == []
    write.check_holds_nothing()


def test_a_message_that_waits_is_freed_without_the_garbage_collector() -> None:
    @virtually
    async def main() -> None:
        before = _count(Package)
        write, _ = await waiting_write()
        await anext(write.responses)
        assert _count(Package) == before + 1
        write.call.close()
        await settle()
        assert _count(Package) == before

    gc.collect()
    gc.disable()
    try:
        main()
    finally:
        gc.enable()


class Body(bytes):
    """An encoded message that can be found."""


def test_a_message_that_is_refused_is_freed_without_the_garbage_collector() -> None:
    @virtually
    async def main() -> None:
        write = Write(Body(b"\xff"))
        assert _count(Body) == 1
        assert await write.fails() == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
        assert _count(Body) == 0

    gc.collect()
    gc.disable()
    try:
        main()
    finally:
        gc.enable()


def _count(kind: type) -> int:
    return sum(isinstance(found, kind) for found in gc.get_objects())


def _messages(count: int) -> list[tuple[MessageKind[Any], Message]]:
    ids = [number.to_bytes(2, "big") * 10 for number in range(0, 65536, 65536 // count)]
    return [
        (CONTENT_ADD, pb2.ContentAddRequest(contents=[model_pb2.Content(id=id) for id in ids])),
        (REVISION_ADD, pb2.RevisionAddRequest(revisions=[model_pb2.Revision(id=id) for id in ids])),
        (ORIGIN_ADD, pb2.OriginAddRequest(origins=[model_pb2.Origin(id=id, url="a") for id in ids])),
        (LOCATION_ADD, pb2.LocationAddRequest(paths=[b""] * count)),
        (LOCATION_ADD, pb2.LocationAddRequest(paths=[b"%d" % number for number in range(count)])),
    ]


@pytest.mark.parametrize("count", [1, 32, 1024, 32768])
@on_loop
async def test_a_message_that_was_read_is_not_refused_for_what_its_packages_take(count: int) -> None:
    splitter, refused = Splitter(RangePolicy(), 5000), []
    for kind, request in _messages(count):
        body = request.SerializeToString()

        async def read(body: bytes = body) -> object:
            return body

        # What the message leaves of its reservation goes to another call at once: as much as it can use.
        budget_bytes = 2 * MESSAGE_MAX_BYTES * 4
        flow_control = FlowControl(Load(10**6, 2**30), Load(10**6, budget_bytes))
        share = flow_control.share()
        await share.memory.reserve(kind.growth)
        assert await share.memory.receive(read(), kind.growth) == body
        flow_control.share("other").memory.resize(budget_bytes - flow_control.waiting_bytes)
        load = Load()
        for package in await splitter.packages(body, kind):
            load.add(package.load)
        try:
            await share.admit(load)
        except MemoryBudgetError:
            refused.append(f"{kind.operation(request).method}: {len(body)} bytes become {load.size_bytes}")
    splitter.close()
    assert refused == []
