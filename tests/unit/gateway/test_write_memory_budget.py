"""The memory budget of all writes: who is read next, and who makes way."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from provgate_gateway.write.flow_control import CallShare, FlowControl, Load, Quota
from provgate_gateway.write.memory_budget import MESSAGE_MAX_BYTES, MemoryBudgetError
from tests.support.async_tests import settle, virtually

BODY = b"message"
# What a message of the largest size reserves.
RESERVED_BYTES = MESSAGE_MAX_BYTES + 16 * 1024


async def message() -> object:
    return BODY


async def never() -> object:
    return await asyncio.Event().wait()


def flow_control_of(messages: float, entries: int = 1000) -> FlowControl:
    """Returns one with a budget of so many messages of the largest size."""
    total = Load(entries, int(messages * RESERVED_BYTES))
    return FlowControl(Load(entries, 1000 * RESERVED_BYTES), total)


async def read(share: CallShare) -> bytes | None:
    await share.memory.reserve(1.0)
    return await share.memory.receive(message(), 1.0)


async def read_from_idle_client(share: CallShare) -> bytes | None:
    await share.memory.reserve(1.0)
    return await share.memory.receive(never(), 1.0)


@virtually
async def test_messages_that_wait_are_within_the_budget_too() -> None:
    flow_control = flow_control_of(2.5, entries=10)
    holder, first, second = (flow_control.share() for _ in range(3))
    await holder.memory.reserve(1.0)
    await holder.admit(Load(10, RESERVED_BYTES))
    await first.memory.reserve(1.0)
    waiting = [asyncio.create_task(first.admit(Load(1, RESERVED_BYTES))), asyncio.create_task(read(second))]
    await settle()
    # The first is read and waits for the entries of the holder, the second is not even read.
    assert (first.memory.size_bytes, second.memory.size_bytes) == (RESERVED_BYTES, 0)
    assert flow_control.waiting_bytes == RESERVED_BYTES
    holder.release(Load(10, RESERVED_BYTES))
    await asyncio.gather(*waiting)
    assert flow_control.unacked == Load(1, RESERVED_BYTES)


@virtually
async def test_a_message_that_grows_over_what_is_free_is_refused() -> None:
    flow_control = flow_control_of(2)
    holder, other = flow_control.share(), flow_control.share()
    await holder.memory.reserve(1.0)
    await holder.admit(Load(1, RESERVED_BYTES))
    await other.memory.reserve(1.0)
    with pytest.raises(MemoryBudgetError):
        await other.admit(Load(1, RESERVED_BYTES + 1))
    other.close()
    assert flow_control.waiting_bytes == 0


@virtually
async def test_a_call_that_sends_nothing_makes_way_when_others_wait_to_be_read() -> None:
    flow_control = flow_control_of(1)
    idle, other = flow_control.share(), flow_control.share()
    reading = asyncio.create_task(read_from_idle_client(idle))
    await asyncio.sleep(3600)
    # It may send nothing for as long as it likes while nobody waits.
    assert not reading.done()
    assert await read(other) == BODY
    with pytest.raises(MemoryBudgetError):
        await reading
    # What the message takes, and no more of what was reserved for one.
    assert 0 < flow_control.waiting_bytes < MESSAGE_MAX_BYTES // 100


@virtually
async def test_the_end_of_a_call_holds_nothing() -> None:
    async def end() -> object:
        return grpc.aio.EOF

    flow_control = flow_control_of(1)
    share = flow_control.share()
    await share.memory.reserve(1.0)
    assert await share.memory.receive(end(), 1.0) is None
    assert flow_control.waiting_bytes == 0


@pytest.mark.parametrize(("has_quota", "share"), [(False, 12), (True, 4)])
@virtually
async def test_calls_that_send_nothing_do_not_keep_those_of_another_caller_from_being_read(
    has_quota: bool, share: int
) -> None:
    flow_control = flow_control_of(16)
    quota = Quota(Load(1000, 1000 * RESERVED_BYTES)) if has_quota else None
    idle = [asyncio.create_task(read_from_idle_client(flow_control.share("idle", quota))) for _ in range(100)]
    await settle()
    # Three quarters of the budget; a quarter if the caller has a quota.
    assert flow_control.waiting_bytes // RESERVED_BYTES == share
    assert await read(flow_control.share("other")) == BODY
    for task in idle:
        task.cancel()
    await asyncio.gather(*idle, return_exceptions=True)
    # Those that are cancelled before they are read leave nothing behind: others get all of the budget but a quarter.
    later = [asyncio.create_task(read_from_idle_client(flow_control.share("later"))) for _ in range(100)]
    await settle()
    assert flow_control.waiting_bytes // RESERVED_BYTES == 12
    for task in later:
        task.cancel()
    await asyncio.gather(*later, return_exceptions=True)


@virtually
async def test_a_slow_call_is_not_ended_for_calls_of_a_caller_that_holds_more() -> None:
    flow_control = flow_control_of(16)
    slow = asyncio.create_task(read_from_idle_client(flow_control.share("slow")))
    await settle()
    many = [asyncio.create_task(read_from_idle_client(flow_control.share("many"))) for _ in range(100)]
    # Those of the other caller end, one after the other, until none of them waits.
    ended, _ = await asyncio.wait(many, return_when=asyncio.FIRST_COMPLETED)
    assert all(isinstance(task.exception(), MemoryBudgetError) for task in ended)
    assert not slow.done()
    for task in (slow, *many):
        task.cancel()
    await asyncio.gather(slow, *many, return_exceptions=True)


@virtually
async def test_callers_that_hold_equally_little_are_read_in_turn() -> None:
    # The budget has memory for one message at a time, as it has while workers are slower than all writers.
    flow_control = flow_control_of(1)
    order: list[str] = []

    async def call(caller: str) -> None:
        share = flow_control.share(caller)
        for _ in range(3):
            await share.memory.reserve(1.0)
            order.append(caller)
            await share.memory.receive(message(), 1.0)
            await share.admit(Load(1, 7))
            await asyncio.sleep(0)
            share.release(Load(1, 7))

    # However many calls each has, and whatever the names' hashes are.
    callers = [f"caller {number}" for number in range(8)]
    await asyncio.gather(*(call(caller) for caller in callers for _ in range(4)))
    first_turns = [order.index(caller) for caller in callers]
    assert max(first_turns) < 2 * len(callers), f"read first: {first_turns}"
