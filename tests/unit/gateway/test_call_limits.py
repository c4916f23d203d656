"""Bounds of a class of calls, and the shares of callers."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import grpc
import pytest

from provgate.v1 import errors_pb2
from provgate_gateway.access.principals import Principal, set_principal
from provgate_gateway.access.roles import Role
from provgate_gateway.errors import CallError
from provgate_gateway.rpc.call_limits import REQUESTS_MAX_BYTES, CallLimit, caller_of
from tests.support.async_tests import virtually


def _entered(limit: CallLimit, caller: str, request_bytes: int = 0) -> list[ExitStack]:
    """Enters until the caller is refused."""
    slots = []
    with pytest.raises(CallError) as raised:  # noqa: PT012
        while True:
            slots.append(limit.enter(caller, request_bytes))
    assert raised.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert raised.value.reason == errors_pb2.ERROR_REASON_TOO_MANY_CALLS
    assert raised.value.retry_delay_s == 1
    return slots


@pytest.mark.parametrize(("places", "share"), [(1, 1), (2, 2), (3, 3), (4, 3), (10, 8), (16, 12), (1000, 750)])
def test_a_caller_that_is_alone_leaves_a_quarter(places: int, share: int) -> None:
    assert len(_entered(CallLimit("reads", places), "a")) == share


def test_who_has_nothing_finds_a_place_while_others_take_what_they_can() -> None:
    limit = CallLimit("reads", 100)
    held = [len(_entered(limit, caller)) for caller in "abcd"]
    assert held == [75, 19, 5, 1]


def test_what_is_given_back_is_for_others_once_and_shares_become_equal() -> None:
    limit = CallLimit("reads", 100)
    greedy = _entered(limit, "a")
    for slot in greedy[:50]:
        slot.close()
        slot.close()
    others = _entered(limit, "b")
    # 25 are held: of the 75 that are free the other takes all but those that its own share leaves.
    assert len(others) == 57
    for slot in greedy[50:] + others:
        slot.close()
    assert len(_entered(limit, "c")) == 75


def test_requests_that_wait_are_bounded_by_their_bytes_too() -> None:
    limit = CallLimit("reads", 1000)
    assert len(_entered(limit, "a", REQUESTS_MAX_BYTES // 16)) == 12
    assert len(_entered(limit, "b", REQUESTS_MAX_BYTES // 16)) == 3
    limit.enter("c")


async def take_turn(limit: CallLimit, caller: str, order: list[str]) -> None:
    with await limit.turn(caller):
        order.append(caller)
        await asyncio.sleep(0)


@virtually
async def test_a_turn_goes_to_the_caller_that_holds_the_fewest() -> None:
    limit, order = CallLimit("reads", 100, 2), list[str]()
    held = [await limit.turn("a"), await limit.turn("a")]
    calls = [asyncio.create_task(take_turn(limit, caller, order)) for caller in "aaaabc"]
    await asyncio.sleep(0)
    for slot in held:
        slot.close()
    await asyncio.gather(*calls)
    # One of a's is first, since a was there first; no other before those who have nothing.
    assert sorted(order[:3]) == ["a", "b", "c"]


@virtually
async def test_with_one_turn_callers_take_it_in_turn() -> None:
    limit, order = CallLimit("reads", 100, 1), list[str]()
    await asyncio.gather(*(take_turn(limit, caller, order) for caller in "aaabbb"))
    # The first has it before anybody else asks.
    assert "".join(order) == "aababb"


@virtually
async def test_a_turn_that_does_not_come_in_time_and_one_that_is_given_up_are_lost_to_nobody() -> None:
    limit = CallLimit("reads", 100, 1, wait_s=60)
    held = await limit.turn("a")
    with pytest.raises(CallError, match="no turn came in time"):
        await limit.turn("a")
    waiting = asyncio.create_task(limit.turn("b"))
    await asyncio.sleep(0)
    # It has its turn already, and does not know yet.
    held.close()
    waiting.cancel()
    await asyncio.wait([waiting])
    (await limit.turn("c")).close()


@pytest.mark.parametrize(
    ("peer", "caller"),
    [
        ("ipv4:10.0.0.1:4242", "ipv4:10.0.0.1"),
        ("ipv6:%5B::1%5D:4242", "ipv6:%5B::1%5D"),
        ("unix:/run/provgate.sock", "unix:/run/provgate.sock"),
    ],
)
def test_the_caller_is_the_address_without_its_port(peer: str, caller: str) -> None:
    assert caller_of(peer) == caller


@virtually
async def test_the_caller_is_the_principal_where_it_is_known() -> None:
    set_principal(Principal("ci", Role.READER))
    assert caller_of("ipv4:10.0.0.1:4242") == "ci"
