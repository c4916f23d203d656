"""Bounds on what is not acked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provgate_gateway.flow_control import CrowdedError, FlowControl, Load


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Call:
    """A call that asks for one admission after the other, as a reader does."""

    def __init__(self, flow_control: FlowControl) -> None:
        self.share = flow_control.share()
        self.admitted: list[Load] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def waits(self) -> bool:
        return self._task is not None and not self._task.done()

    async def ask(self, entry_count: int, size_bytes: int = 0) -> None:
        async def admit() -> None:
            load = Load(entry_count, size_bytes)
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


def test_what_waits_is_bounded_too() -> None:
    async def test() -> None:
        flow_control = FlowControl(Load(10, 100), Load(10, 100), max_waiting_bytes=150)
        holder, first, second, third = (Call(flow_control) for _ in range(4))
        await holder.ask(10, 100)
        await first.ask(1, 100)
        assert first.waits
        with pytest.raises(CrowdedError):
            await flow_control.share().admit(Load(1, 51))
        await second.ask(1, 50)
        assert second.waits
        await holder.ack()
        assert first.admitted
        # What was admitted waits no more.
        await third.ask(1, 100)
        assert third.waits

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
