"""Bounds on what writes have unacked: of a call, of its caller, of all."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provgate_gateway.write.flow_control import EntryRate, FlowControl, Load, Quota, QuotaError
from provgate_gateway.write.memory_budget import MESSAGE_MAX_BYTES
from tests.support.async_tests import settle, virtually

UNIT = 64 * 1024
# What `MessageMemory.reserve` adds to a message's own size.
PACKAGES_BYTES = 16 * 1024


def load(entry_count: int, units: int = 0) -> Load:
    return Load(entry_count, units * UNIT)


class Call:
    """A call that asks for one admission after the other, as a reader does."""

    def __init__(self, flow_control: FlowControl, quota: Quota | None = None) -> None:
        self.share = flow_control.share("" if quota is None else f"with quota {id(quota)}", quota)
        self.admitted: list[Load] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def waits(self) -> bool:
        return self._task is not None and not self._task.done()

    async def ask(self, entry_count: int, units: int = 0) -> None:
        async def admit() -> None:
            # The growth at which a message of the largest size takes these bytes.
            await self.share.memory.reserve((units * UNIT - PACKAGES_BYTES) / MESSAGE_MAX_BYTES)
            await self.share.admit(load(entry_count, units))
            self.admitted.append(load(entry_count, units))

        self._task = asyncio.create_task(admit())
        await settle()

    async def ack(self) -> None:
        self.share.release(self.admitted.pop(0))
        await settle()

    async def cancel(self) -> None:
        """As a write ends: its reader is cancelled and its share closed in one go."""
        if self._task is not None:
            self._task.cancel()
        self.share.close()
        if self._task is not None:
            with suppress(asyncio.CancelledError):
                await self._task
        self.admitted.clear()
        await settle()


BOUNDS = st.builds(load, st.integers(1, 20), st.integers(1, 200))


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
@virtually
async def test_nothing_goes_beyond_the_bounds_and_nothing_gets_stuck(
    bounds: tuple[Load, Load], steps: list[tuple[str, int, int, int]]
) -> None:
    per_call, total = bounds
    flow_control = FlowControl(per_call, total)
    calls = [Call(flow_control) for _ in range(5)]
    for action, number, entry_count, units in steps:
        call = calls[number]
        if action == "ask" and not call.waits:
            await call.ask(entry_count, units if entry_count else 0)
        elif action == "ack" and call.admitted:
            await call.ack()
        elif action == "cancel":
            await call.cancel()
            calls[number] = Call(flow_control)
        for call in calls:
            _check_unacked(call.share.unacked, per_call, call.admitted)
        _check_unacked(flow_control.unacked, total, [each for call in calls for each in call.admitted])
    while any(call.admitted for call in calls):
        for call in calls:
            if call.admitted:
                await call.ack()
    assert not any(call.waits for call in calls)
    assert flow_control.unacked == Load()


def _check_unacked(unacked: Load, bound: Load, loads: list[Load]) -> None:
    assert unacked == Load(sum(each.entry_count for each in loads), sum(each.size_bytes for each in loads))
    alone = sum(each.entry_count > 0 for each in loads) <= 1
    assert alone or (unacked.entry_count <= bound.entry_count and unacked.size_bytes <= bound.size_bytes)


def calls_within(total: Load, count: int, per_call: Load | None = None) -> tuple[FlowControl, list[Call]]:
    flow_control = FlowControl(per_call or load(10, 100), total)
    return flow_control, [Call(flow_control) for _ in range(count)]


@pytest.mark.parametrize(("entry_count", "units"), [(11, 1), (1, 101)])
@virtually
async def test_a_message_larger_than_the_bounds_is_admitted_alone(entry_count: int, units: int) -> None:
    _, (small, large, later) = calls_within(load(10, 100), 3)
    await small.ask(1, 1)
    await large.ask(entry_count, units)
    await later.ask(1, 1)
    assert (large.waits, later.waits) == (True, True)
    await small.ack()
    assert (large.waits, later.waits) == (False, True)
    await large.ack()
    assert later.admitted


@virtually
async def test_calls_are_admitted_in_the_order_in_which_they_ask() -> None:
    _, (holder, *calls) = calls_within(load(10, 100), 5)
    await holder.ask(10)
    for call, entry_count in zip(calls, (6, 5, 1, 4), strict=True):
        await call.ask(entry_count)
    await holder.ack()
    # The last would fit beside the first, but those in between came earlier.
    assert [bool(call.admitted) for call in calls] == [True, False, False, False]
    await calls[0].ack()
    assert not any(call.waits for call in calls)


@virtually
async def test_a_call_at_its_own_bound_does_not_hold_others_up() -> None:
    _, (greedy, modest) = calls_within(load(100, 1000), 2)
    await greedy.ask(8)
    await greedy.ask(8)
    assert greedy.share.waiting
    await modest.ask(8)
    assert modest.admitted
    await greedy.ack()
    assert not greedy.share.waiting


@pytest.mark.parametrize(("total", "gone_first", "holder_first", "waiting_asks"), [(20, 8, 10, 9), (10, 0, 5, 2)])
@virtually
async def test_a_call_that_is_cancelled_while_it_waits_lets_the_next_one_in(
    total: int, gone_first: int, holder_first: int, waiting_asks: int
) -> None:
    # It waits at its own bound, or at the head of the queue.
    _, (gone, holder, waiting) = calls_within(load(total, 200), 3)
    if gone_first:
        await gone.ask(gone_first)
    await holder.ask(holder_first)
    await gone.ask(8)
    await waiting.ask(waiting_asks)
    assert (gone.waits, waiting.waits) == (True, True)
    await gone.cancel()
    assert waiting.admitted


@virtually
async def test_a_call_that_is_cancelled_in_the_moment_of_its_admission_gives_it_back() -> None:
    flow_control, (holder, gone) = calls_within(load(10, 100), 2)
    await holder.ask(10)
    await gone.ask(10)
    holder.share.release(holder.admitted.pop())
    await gone.cancel()
    assert not gone.waits
    assert flow_control.unacked == Load()


@virtually
async def test_a_task_that_is_cancelled_without_its_share_being_closed_gives_its_admission_back() -> None:
    flow_control, (holder,) = calls_within(load(10, 100), 1)
    share = flow_control.share()
    await holder.ask(1)
    admission = asyncio.create_task(share.admit(Load(10)))
    await settle()
    holder.share.release(holder.admitted.pop())
    assert flow_control.unacked == Load(10)
    admission.cancel()
    await asyncio.wait([admission])
    assert flow_control.unacked == share.unacked == Load()


@virtually
async def test_close_gives_everything_back_once() -> None:
    flow_control, (call, other) = calls_within(load(20, 200), 2)
    await call.ask(3, 30)
    await call.ask(4, 40)
    await other.ask(5, 50)
    call.share.close()
    call.share.close()
    call.share.release(load(3, 30))
    assert flow_control.unacked == load(5, 50)
    assert call.share.unacked == Load()


def calls_of_a_quota(count: int) -> tuple[FlowControl, Quota, list[Call]]:
    """Returns calls that share a quota of ten entries, far below the other bounds."""
    flow_control, quota = FlowControl(load(100, 1000), load(1000, 10_000)), Quota(load(10, 1000))
    return flow_control, quota, [Call(flow_control, quota) for _ in range(count)]


@virtually
async def test_the_first_message_of_a_call_is_refused_if_it_does_not_fit_beside_the_others_of_its_caller() -> None:
    flow_control, quota, (holder,) = calls_of_a_quota(1)
    await holder.ask(8)
    with pytest.raises(QuotaError) as raised:
        await flow_control.share(quota=quota).admit(Load(3))
    assert raised.value.retry_delay_s == 1
    await flow_control.share(quota=quota).admit(Load(2))
    other = Call(flow_control)
    await other.ask(50)
    assert other.admitted


@virtually
async def test_a_call_that_has_begun_waits_for_its_quota_and_is_never_refused() -> None:
    flow_control, quota, calls = calls_of_a_quota(3)
    for call in calls:
        await call.ask(3)
    for call in calls:
        await call.ask(8)
    assert all(call.waits for call in calls)
    # What each has unacked is acked whatever waits, so that each is admitted.
    for call in calls:
        await call.ack()
    for call in calls:
        assert call.admitted
        await call.ack()
    assert quota.unacked == flow_control.unacked == Load()


@virtually
async def test_calls_of_one_caller_wait_behind_its_large_message_and_others_do_not() -> None:
    flow_control, _, (holder, large, small) = calls_of_a_quota(3)
    other = Call(flow_control)
    for call in (holder, large, small):
        await call.ask(1)
    await large.ask(20)
    await small.ask(1)
    await other.ask(1)
    assert (large.waits, small.waits, other.waits) == (True, True, False)
    for call in (holder, small, large):
        await call.ack()
    assert (large.waits, small.waits) == (False, True)
    await large.ack()
    assert small.admitted


@virtually
async def test_a_call_that_ends_gives_its_part_of_the_quota_back() -> None:
    _, quota, (gone, waiting) = calls_of_a_quota(2)
    await waiting.ask(1)
    await gone.ask(9)
    await waiting.ask(5)
    assert waiting.waits
    await gone.cancel()
    assert len(waiting.admitted) == 2
    assert quota.unacked == Load(6)


@virtually
async def test_a_call_that_has_begun_waits_for_its_entry_rate_and_others_may_not_begin() -> None:
    loop = asyncio.get_running_loop()
    rate = EntryRate(100)
    flow_control = FlowControl(load(10_000, 1000), load(10_000, 100))
    quota = Quota(load(10_000, 1000), rate, 5)
    call, other = Call(flow_control, quota), Call(flow_control)
    await call.ask(1000, 1)
    await call.ask(1, 25)
    assert call.waits
    assert call.share.rate_passes_at == 9
    with pytest.raises(QuotaError) as raised:
        await flow_control.share(quota=quota).admit(Load(1))
    assert raised.value.retry_delay_s == 9.01
    # What waits for the rate holds memory as well.
    assert flow_control.waiting_bytes == 25 * UNIT
    await other.ask(1, 75)
    assert other.waits
    await call.cancel()
    assert rate.wait_s(loop.time()) == 9
    assert call.share.rate_passes_at == 0
    assert other.admitted
    assert flow_control.unacked == load(1, 75)
    await asyncio.sleep(4)
    # It waits for five seconds, which the first message of a call may.
    began_at = loop.time()
    await flow_control.share(quota=quota).admit(Load(1))
    assert loop.time() - began_at == pytest.approx(5)


def test_a_message_of_any_size_passes_the_entry_rate_if_there_is_no_debt() -> None:
    rate = EntryRate(100)
    assert rate.add(1000, 0) == 0
    assert [rate.wait_s(now) for now in (0, 8.5, 9)] == [9, 0.5, 0]
    assert rate.add(1000, 9) == 0


def test_messages_pass_the_entry_rate_in_order_and_one_that_gives_up_does_not_count() -> None:
    rate = EntryRate(100)
    assert [rate.add(200, 0) for _ in range(4)] == [0, 1, 3, 5]
    rate.give_back(200)
    assert rate.wait_s(0) == 5


def test_an_entry_rate_allows_the_entries_of_one_second_at_once() -> None:
    rate = EntryRate(100)
    assert [rate.add(100, 60) for _ in range(3)] == [0, 0, 1]


def test_over_time_no_more_than_the_entry_rate_passes() -> None:
    rate, now, passed = EntryRate(100), 0.0, 0
    for entry_count in range(1, 200):
        now += rate.add(entry_count, now)
        # Before this message: what was there at the start, and what came since.
        assert passed <= 100 + now * 100 + 1e-6
        passed += entry_count
