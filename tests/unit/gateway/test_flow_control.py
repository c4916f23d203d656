"""Bounds on what is not acked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provgate_gateway.write.flow_control import (
    MESSAGE_MAX_BYTES,
    CrowdedError,
    EntryRate,
    FlowControl,
    Load,
    Quota,
    QuotaError,
)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Call:
    """A call that asks for one admission after the other, as a reader does."""

    def __init__(self, flow_control: FlowControl, quota: Quota | None = None) -> None:
        self.flow_control = flow_control
        self.share = flow_control.share("" if quota is None else f"with quota {id(quota)}", quota)
        self.admitted: list[Load] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def waits(self) -> bool:
        return self._task is not None and not self._task.done()

    async def ask(self, entry_count: int, size_bytes: int = 0) -> None:
        async def admit() -> None:
            load = Load(entry_count, size_bytes)
            await self.flow_control.reserve(self.share, size_bytes)
            await self.share.admit(load)
            self.admitted.append(load)

        self._task = asyncio.create_task(admit())
        await _settle()

    async def ack(self) -> None:
        self.share.release(self.admitted.pop(0))
        await _settle()

    async def cancel(self) -> None:
        """As a write ends: its reader is cancelled and its share closed in one go."""
        if self._task is not None:
            self._task.cancel()
        self.share.close()
        if self._task is not None:
            with suppress(asyncio.CancelledError):
                await self._task
        self.admitted.clear()
        await _settle()


BOUNDS = st.builds(Load, st.integers(1, 20), st.integers(1, 200))


@settings(max_examples=300, deadline=None)
@given(
    st.tuples(BOUNDS, BOUNDS),
    st.lists(
        st.one_of(
            st.tuples(st.just("ask"), st.integers(0, 4), st.integers(0, 25), st.integers(0, 250)),
            st.tuples(st.just("ack"), st.integers(0, 4), st.just(0), st.just(0)),
            st.tuples(st.just("cancel"), st.integers(0, 4), st.just(0), st.just(0)),
        ),
        max_size=40,
    ),
)
def test_nothing_goes_beyond_the_bounds_and_nothing_gets_stuck(
    bounds: tuple[Load, Load], steps: list[tuple[str, int, int, int]]
) -> None:
    per_call, total = bounds

    async def test() -> None:
        flow_control = FlowControl(per_call, total)
        calls = [Call(flow_control) for _ in range(5)]
        for action, number, entry_count, size_bytes in steps:
            call = calls[number]
            if action == "ask" and not call.waits:
                await call.ask(entry_count, size_bytes if entry_count else 0)
            elif action == "ack" and call.admitted:
                await call.ack()
            elif action == "cancel":
                await call.cancel()
                calls[number] = Call(flow_control)
            for call in calls:
                _check_within(call.share.in_hand, per_call, call.admitted)
                assert call.share.in_hand == _sum(call.admitted)
            _check_within(flow_control.in_hand, total, [load for call in calls for load in call.admitted])
            assert flow_control.in_hand == _sum([load for call in calls for load in call.admitted])
        while any(call.admitted for call in calls):
            for call in calls:
                if call.admitted:
                    await call.ack()
        assert not any(call.waits for call in calls)
        assert flow_control.in_hand == Load()

    run(test)


def _sum(loads: list[Load]) -> Load:
    return Load(sum(load.entry_count for load in loads), sum(load.size_bytes for load in loads))


def _check_within(in_hand: Load, bound: Load, loads: list[Load]) -> None:
    alone = sum(load.entry_count > 0 for load in loads) <= 1
    assert alone or (in_hand.entry_count <= bound.entry_count and in_hand.size_bytes <= bound.size_bytes)


@pytest.mark.parametrize("too_large", [Load(11, 1), Load(1, 101)])
def test_a_message_larger_than_the_bounds_is_admitted_alone(too_large: Load) -> None:
    async def test() -> None:
        flow_control = FlowControl(Load(10, 100), Load(10, 100))
        small, large, later = Call(flow_control), Call(flow_control), Call(flow_control)
        await small.ask(1, 1)
        await large.ask(too_large.entry_count, too_large.size_bytes)
        await later.ask(1, 1)
        assert large.waits
        assert later.waits
        await small.ack()
        assert large.admitted
        assert later.waits
        await large.ack()
        assert later.admitted

    run(test)


def test_what_waits_is_within_the_bound_too() -> None:
    async def test() -> None:
        flow_control = FlowControl(Load(10, 100), Load(10, 100))
        holder, first, second = (Call(flow_control) for _ in range(3))
        await holder.ask(10, 40)
        await first.ask(1, 50)
        await second.ask(1, 20)
        # The first is read and waits for the entries of the holder, the second is not even read.
        assert (first.share.waiting_bytes, second.share.waiting_bytes) == (50, 0)
        assert flow_control.waiting_bytes == 50
        await holder.ack()
        assert first.admitted
        assert second.admitted
        assert flow_control.waiting_bytes == 0

    run(test)


def test_a_message_that_grows_over_what_is_free_is_refused() -> None:
    async def test() -> None:
        flow_control = FlowControl(Load(10, 100), Load(10, 100))
        holder, other = Call(flow_control), flow_control.share()
        await holder.ask(1, 50)
        await flow_control.reserve(other, 40)
        with pytest.raises(CrowdedError):
            await other.admit(Load(1, 51))
        other.close()
        assert flow_control.waiting_bytes == 0

    run(test)


async def _never() -> bytes:
    return await asyncio.Future()


def test_a_call_that_sends_nothing_makes_way_when_others_wait_to_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provgate_gateway.write.flow_control._NEXT_MESSAGE_S", 0.0)

    async def message() -> bytes:
        return b"message"

    async def test() -> None:
        flow_control = FlowControl(Load(10, 100), Load(10, 100))
        idle, other = flow_control.share(), flow_control.share()
        reading = asyncio.create_task(idle.next_message(_never, 1.0))
        await _settle()
        assert not reading.done()
        assert await other.next_message(message, 1.0) == b"message"
        with pytest.raises(CrowdedError):
            await reading
        # What the message takes, and no more of what was reserved for one.
        assert 0 < flow_control.waiting_bytes < MESSAGE_MAX_BYTES // 100

    run(test)


def test_the_end_of_a_call_holds_nothing() -> None:
    async def end() -> object:
        return grpc.aio.EOF

    async def test() -> None:
        flow_control = FlowControl(Load(10, 100), Load(10, 100))
        assert await flow_control.share().next_message(end, 1.0) is None
        assert flow_control.waiting_bytes == 0

    run(test)


def test_calls_are_admitted_in_the_order_in_which_they_ask() -> None:
    async def test() -> None:
        flow_control = FlowControl(Load(10, 100), Load(10, 100))
        holder, *calls = (Call(flow_control) for _ in range(5))
        await holder.ask(10)
        for call, entry_count in zip(calls, (6, 5, 1, 4), strict=True):
            await call.ask(entry_count)
        await holder.ack()
        # The last would fit beside the first, but those in between came earlier.
        assert [bool(call.admitted) for call in calls] == [True, False, False, False]
        await calls[0].ack()
        assert [call.waits for call in calls] == [False, False, False, False]

    run(test)


def test_a_call_at_its_own_bound_does_not_hold_others_up() -> None:
    async def test() -> None:
        flow_control = FlowControl(Load(10, 100), Load(100, 1000))
        greedy, modest = Call(flow_control), Call(flow_control)
        await greedy.ask(8)
        await greedy.ask(8)
        assert greedy.share.waiting
        await modest.ask(8)
        assert modest.admitted
        await greedy.ack()
        assert not greedy.share.waiting

    run(test)


def test_a_call_that_is_cancelled_while_it_waits_at_its_own_bound_lets_the_others_go_on() -> None:
    async def test() -> None:
        flow_control = FlowControl(Load(10, 100), Load(20, 200))
        gone, holder, waiting = (Call(flow_control) for _ in range(3))
        await gone.ask(8)
        await gone.ask(8)
        await holder.ask(10)
        await waiting.ask(9)
        assert waiting.waits
        await gone.cancel()
        assert waiting.admitted
        assert flow_control.in_hand == Load(19)

    run(test)


def test_a_call_that_is_cancelled_at_the_head_of_the_queue_lets_the_next_one_in() -> None:
    async def test() -> None:
        flow_control = FlowControl(Load(10, 100), Load(10, 100))
        holder, gone, waiting = (Call(flow_control) for _ in range(3))
        await holder.ask(5)
        await gone.ask(8)
        await waiting.ask(2)
        await gone.cancel()
        assert waiting.admitted

    run(test)


def test_a_call_that_is_cancelled_in_the_moment_of_its_admission_gives_it_back() -> None:
    async def test() -> None:
        flow_control = FlowControl(Load(10, 100), Load(10, 100))
        holder, gone = Call(flow_control), Call(flow_control)
        await holder.ask(10)
        await gone.ask(10)
        holder.share.release(holder.admitted.pop())
        await gone.cancel()
        assert not gone.waits
        assert flow_control.in_hand == Load()

    run(test)


def test_a_task_that_is_cancelled_without_its_share_being_closed_gives_its_admission_back() -> None:
    async def test() -> None:
        flow_control = FlowControl(Load(10, 100), Load(10, 100))
        holder, share = Call(flow_control), flow_control.share()
        await holder.ask(1)
        admission = asyncio.create_task(share.admit(Load(10)))
        await _settle()
        holder.share.release(holder.admitted.pop())
        assert flow_control.in_hand == Load(10)
        admission.cancel()
        with pytest.raises(asyncio.CancelledError):
            await admission
        assert flow_control.in_hand == share.in_hand == Load()

    run(test)


def test_close_gives_everything_back_once() -> None:
    async def test() -> None:
        flow_control = FlowControl(Load(10, 100), Load(20, 200))
        call, other = Call(flow_control), Call(flow_control)
        await call.ask(3, 30)
        await call.ask(4, 40)
        await other.ask(5, 50)
        call.share.close()
        call.share.close()
        call.share.release(Load(3, 30))
        assert flow_control.in_hand == Load(5, 50)
        assert call.share.in_hand == Load()

    run(test)


def test_the_first_message_of_a_call_is_refused_where_others_of_its_caller_leave_no_room() -> None:
    async def test() -> None:
        flow_control, quota = FlowControl(Load(100, 1000), Load(1000, 10_000)), Quota(Load(10, 1000))
        holder, other = Call(flow_control, quota), Call(flow_control)
        await holder.ask(8)
        with pytest.raises(QuotaError) as raised:
            await flow_control.share(quota=quota).admit(Load(3))
        assert raised.value.retry_delay_s == 1
        await flow_control.share(quota=quota).admit(Load(2))
        await other.ask(50)
        assert other.admitted

    run(test)


def test_a_call_that_has_begun_waits_for_room_and_is_never_refused() -> None:
    async def test() -> None:
        flow_control, quota = FlowControl(Load(100, 1000), Load(1000, 10_000)), Quota(Load(10, 1000))
        calls = [Call(flow_control, quota) for _ in range(3)]
        for call in calls:
            await call.ask(3)
        for call in calls:
            await call.ask(8)
        assert all(call.waits for call in calls)
        # What each has in hand is acked whatever waits, so that each has its turn.
        for call in calls:
            await call.ack()
        for call in calls:
            assert call.admitted
            await call.ack()
        assert quota.in_hand == flow_control.in_hand == Load()

    run(test)


def test_those_of_one_caller_wait_behind_its_large_message_and_others_do_not() -> None:
    async def test() -> None:
        flow_control, quota = FlowControl(Load(100, 1000), Load(1000, 10_000)), Quota(Load(10, 1000))
        holder, large, small = (Call(flow_control, quota) for _ in range(3))
        other = Call(flow_control)
        for call in (holder, large, small):
            await call.ask(1)
        await large.ask(20)
        await small.ask(1)
        await other.ask(1)
        assert large.waits
        assert small.waits
        assert other.admitted
        for call in (holder, small, large):
            await call.ack()
        assert large.admitted
        assert small.waits
        await large.ack()
        assert small.admitted

    run(test)


def test_a_call_that_ends_gives_its_part_of_the_quota_back() -> None:
    async def test() -> None:
        flow_control, quota = FlowControl(Load(100, 1000), Load(1000, 10_000)), Quota(Load(10, 1000))
        gone, waiting = Call(flow_control, quota), Call(flow_control, quota)
        await waiting.ask(1)
        await gone.ask(9)
        await waiting.ask(5)
        assert waiting.waits
        await gone.cancel()
        assert len(waiting.admitted) == 2
        assert quota.in_hand == Load(6)

    run(test)


def test_one_caller_alone_does_not_fill_what_others_wait_in() -> None:
    async def test() -> None:
        flow_control = FlowControl(Load(10_000, 10_000), Load(10_000, 100))
        quota = Quota(Load(1, 10_000))
        holder, waiting, late, other = (Call(flow_control, each) for each in (quota, quota, quota, None))
        for call in (waiting, late):
            await call.ask(0)
        await holder.ask(1)
        await waiting.ask(1, 25)
        await late.ask(1, 1)
        await other.ask(1, 75)
        # The late one is not read, and does not hold up the other, who comes after it.
        assert quota.waiting_bytes == 25
        assert late.share.waiting_bytes == 0
        assert not other.waits
        await waiting.cancel()
        assert quota.waiting_bytes == late.share.waiting_bytes == 1

    run(test)


def test_a_call_that_has_begun_waits_for_its_turn_and_others_may_not_begin() -> None:
    async def test() -> None:
        clock = [0.0]
        rate = EntryRate(100, lambda: clock[0])
        flow_control = FlowControl(Load(10_000, 1000), Load(10_000, 100))
        quota = Quota(Load(10_000, 1000), rate, turn_max_s=5)
        call, other = Call(flow_control, quota), Call(flow_control)
        await call.ask(1000, 1)
        await call.ask(1, 25)
        assert call.waits
        assert call.share.turn_at > 0
        with pytest.raises(QuotaError) as raised:
            await flow_control.share(quota=quota).admit(Load(1))
        assert raised.value.retry_delay_s == 9.01
        # What waits for its turn is held in memory as well.
        assert flow_control.waiting_bytes == 25
        await other.ask(1, 75)
        assert other.waits
        await call.cancel()
        assert rate.wait_s() == 9
        assert call.share.turn_at == 0
        assert other.admitted
        assert flow_control.in_hand == Load(1, 75)
        clock[0] = 4
        begun = flow_control.share(quota=quota)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await begun.admit(Load(1))

    run(test)


def test_calls_that_send_nothing_do_not_keep_those_of_another_caller_from_being_read() -> None:
    async def main() -> None:
        message_bytes = MESSAGE_MAX_BYTES
        flow_control = FlowControl(Load(1000, 1000 * message_bytes), Load(1000, 16 * message_bytes))

        async def never() -> object:
            return await asyncio.Event().wait()

        async def message() -> object:
            return b"message"

        idle = [asyncio.create_task(flow_control.share("idle").next_message(never, 1.0)) for _ in range(100)]
        await asyncio.sleep(0)
        # Three quarters of the bytes.
        assert flow_control.waiting_bytes // message_bytes == 12
        assert await flow_control.share("other").next_message(message, 1.0) == b"message"
        for task in idle:
            task.cancel()
        await asyncio.gather(*idle, return_exceptions=True)
        assert not flow_control._readers

    asyncio.run(main())


def test_a_slow_call_is_not_ended_for_calls_of_a_caller_that_holds_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provgate_gateway.write.flow_control._NEXT_MESSAGE_S", 0.0)

    async def main() -> None:
        flow_control = FlowControl(Load(1000, 1000 * MESSAGE_MAX_BYTES), Load(1000, 16 * MESSAGE_MAX_BYTES))

        async def never() -> object:
            return await asyncio.Event().wait()

        slow = asyncio.create_task(flow_control.share("slow").next_message(never, 1.0))
        await asyncio.sleep(0)
        many = [asyncio.create_task(flow_control.share("many").next_message(never, 1.0)) for _ in range(100)]
        # Those of the other caller end, one after the other, until none of them waits.
        ended, _ = await asyncio.wait(many, return_when=asyncio.FIRST_COMPLETED)
        assert all(isinstance(task.exception(), CrowdedError) for task in ended)
        assert not slow.done()
        for task in (slow, *many):
            task.cancel()
        await asyncio.gather(slow, *many, return_exceptions=True)

    asyncio.run(main())


def test_callers_that_hold_equally_little_are_read_in_turn() -> None:
    async def main() -> None:
        # There is room for one message at a time, as there is while workers are slower than all who write.
        flow_control = FlowControl(Load(1000, 1000 * MESSAGE_MAX_BYTES), Load(1000, MESSAGE_MAX_BYTES))
        order: list[str] = []

        async def call(caller: str) -> None:
            async def message() -> object:
                order.append(caller)
                return b"message"

            share = flow_control.share(caller)
            for _ in range(3):
                assert await share.next_message(message, 1.0) == b"message"
                await share.admit(Load(1, 7))
                await asyncio.sleep(0)
                share.release(Load(1, 7))

        # However many calls each has, and whatever the names' hashes are.
        callers = [f"caller {number}" for number in range(8)]
        await asyncio.gather(*(call(caller) for caller in callers for _ in range(4)))
        first_turns = [order.index(caller) for caller in callers]
        assert max(first_turns) < 2 * len(callers), f"read first: {first_turns}"

    asyncio.run(main())
