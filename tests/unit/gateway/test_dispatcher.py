"""What becomes of packages between calls and broker: the life of each, order, slices, and what calls are given."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest

from provgate_broker.amqp.connection import NOT_FOUND
from provgate_broker.errors import ConnectionLostError
from provgate_broker.topology.declaration import QueueState
from provgate_broker.wire.package import Nack
from provgate_gateway.publish.ledger import BrokerRefused
from tests.support.async_tests import on_loop, settle, virtually
from tests.support.fake_broker import FakeBroker, FakeOwner, package_of

PACKAGE = package_of()
SLICE = 500
LONG_COUNT = 200_000
MIB = 1024 * 1024


async def published(broker: FakeBroker, count: int) -> None:
    async with asyncio.timeout(120):
        while len(broker.publisher.published) < count:  # noqa: ASYNC110 - each turn of the loop is a slice
            await asyncio.sleep(0)


@virtually
async def test_a_package_waits_is_published_confirmed_and_acked() -> None:
    broker, owner = FakeBroker(), FakeOwner()
    broker.dispatcher.submit([PACKAGE], owner)
    assert broker.tokens == []
    broker.connect()
    (token,) = broker.tokens
    broker.dispatcher.confirmed(token)
    assert owner.happened == ["Published"]
    for _ in range(2):
        broker.dispatcher.replied(token, 1)
        broker.dispatcher.confirmed(token)
    assert owner.happened == ["Published", "Acked"]
    broker.lose_publisher()
    broker.connect()
    assert broker.tokens == [token]
    sample = broker.registry.get_sample_value
    for name in ("published", "confirmed", "acked"):
        assert sample(f"provgate_gateway_entries_{name}_total", {"method": "content_add"}) == 1
    for name in ("confirm", "ack"):
        assert sample(f"provgate_gateway_publish_to_{name}_seconds_count", {"method": "content_add"}) == 1


@virtually
async def test_what_is_not_confirmed_is_published_again_after_the_publisher_is_lost() -> None:
    broker, owner = FakeBroker(), FakeOwner()
    broker.connect()
    broker.dispatcher.submit([PACKAGE, PACKAGE], owner)
    confirmed, lost = broker.tokens
    broker.dispatcher.confirmed(confirmed)
    broker.lose_publisher()
    broker.connect()
    (again,) = broker.tokens[2:]
    assert again != lost
    # The first publication may have reached the broker all the same.
    for token in (lost, again, confirmed):
        broker.dispatcher.replied(token, 1)
    assert sorted(owner.happened) == ["Acked", "Acked", "Published", "Published"]


@virtually
async def test_what_is_not_acked_is_published_again_after_the_reply_queue_is_lost() -> None:
    broker, owner = FakeBroker(), FakeOwner()
    broker.connect()
    broker.dispatcher.submit([PACKAGE, PACKAGE], owner)
    acked, unacked = broker.tokens
    for token in (acked, unacked):
        broker.dispatcher.confirmed(token)
    broker.dispatcher.replied(acked, 1)
    broker.lose_reply_queue()
    assert broker.changes == [True, False]
    broker.renew_reply_queue()
    (again,) = broker.publisher.published[2:]
    assert again.reply_to == "amq.gen-other-replies"
    broker.dispatcher.confirmed(again.token)
    broker.dispatcher.replied(again.token, 1)
    assert owner.happened == ["Published", "Published", "Acked", "Acked"]
    # Each confirm has its time, and each package counts once.
    for name, count in (("entries_confirmed_total", 2), ("publish_to_confirm_seconds_count", 3)):
        assert broker.registry.get_sample_value(f"provgate_gateway_{name}", {"method": "content_add"}) == count


@virtually
async def test_a_package_that_a_worker_refuses_or_that_has_no_queue_fails_its_call() -> None:
    broker, refused, returned = FakeBroker(), FakeOwner(), FakeOwner()
    broker.connect()
    for owner in (refused, returned):
        broker.dispatcher.submit([PACKAGE], owner)
    first, second = broker.tokens
    broker.dispatcher.replied(first, Nack("malformed", "not a package", 3))
    broker.dispatcher.returned(second, "content", PACKAGE.routing_key)
    # The broker confirms what it returns.
    broker.dispatcher.confirmed(second)
    assert (refused.happened, returned.happened) == (["Refused"], ["Returned"])


@virtually
async def test_a_package_of_a_missing_exchange_fails_its_call_and_is_not_published_again() -> None:
    broker, owner = FakeBroker(), FakeOwner()
    broker.connect()
    broker.dispatcher.submit([PACKAGE], owner)
    loss = ConnectionLostError("NOT_FOUND - no exchange 'content' in vhost '/'", reply_code=NOT_FOUND)
    broker.lose_publisher(loss)
    broker.connect()
    assert owner.happened == ["Returned"]
    assert len(broker.tokens) == 1


@pytest.mark.parametrize(
    ("answer", "queue_max_bytes", "is_full"),
    [
        (QueueState(105, 0), MIB, True),
        (QueueState(84, 0), MIB, True),
        (QueueState(20, 0), MIB, False),
        (QueueState(0, 0), MIB, False),
        (None, MIB, False),
        (QueueState(10**6, 0), None, False),
        (ConnectionLostError("lost"), MIB, False),
        (TimeoutError(), MIB, False),
    ],
)
@virtually
async def test_a_refusal_of_the_broker_is_explained_by_what_is_in_the_queue(
    answer: QueueState | Exception | None, queue_max_bytes: int | None, is_full: bool
) -> None:
    broker, first, second, gone = FakeBroker(queue_max_bytes=queue_max_bytes), FakeOwner(), FakeOwner(), FakeOwner()
    broker.replies.queue_answer = answer
    broker.connect()
    running = asyncio.create_task(broker.dispatcher.run())
    for owner in (first, second, gone):
        broker.dispatcher.submit([package_of(body=b"x" * 10_000)] * 50, owner)
    for token in broker.tokens:
        broker.dispatcher.nacked(token)
    broker.dispatcher.drop(gone)
    # Longer than an answer may take.
    await asyncio.sleep(3)
    # However many are refused, the broker is asked once, and a call fails once.
    assert len(broker.replies.asked) == (queue_max_bytes is not None)
    for owner in (first, second):
        (event,) = owner.events
        assert isinstance(event, BrokerRefused)
        assert event.queue_is_full is is_full
    assert gone.events == []
    running.cancel()


@virtually
async def test_packages_go_out_in_the_order_in_which_they_came_and_dropped_ones_do_not() -> None:
    broker, owner, gone = FakeBroker(), FakeOwner(), FakeOwner()
    for each in (owner, gone, owner):
        broker.dispatcher.submit([package_of(body=b"%d" % number) for number in range(SLICE)], each)
    broker.dispatcher.drop(gone)
    broker.connect()
    await published(broker, 2 * SLICE)
    await settle()
    assert [int(message.body) for message in broker.publisher.published] == [*range(SLICE), *range(SLICE)]
    for token in broker.tokens:
        broker.dispatcher.replied(token, 1)
    assert (owner.happened.count("Acked"), gone.events) == (2 * SLICE, [])


@virtually
async def test_a_change_is_reported_only_when_the_broker_becomes_reachable_or_stops_being_so() -> None:
    broker = FakeBroker()
    # A publisher reports that it is ready whenever it has caught up: many times a second, under load.
    for _ in range(100):
        broker.connect()
    broker.publisher.is_blocked = True
    broker.dispatcher.publisher_blocked()
    broker.lose_publisher()
    assert broker.changes == [True, False]


@virtually
async def test_nothing_is_published_while_the_broker_blocks() -> None:
    broker = FakeBroker()
    broker.connect()
    broker.publisher.is_blocked = True
    broker.dispatcher.publisher_blocked()
    broker.dispatcher.submit([PACKAGE], FakeOwner())
    await settle()
    assert (broker.tokens, broker.dispatcher.blocked) == ([], True)
    broker.publisher.is_blocked = False
    broker.dispatcher.publisher_ready()
    assert len(broker.tokens) == 1


@on_loop
async def test_a_package_of_a_long_backlog_costs_what_one_of_a_short_backlog_does() -> None:
    async def cost_s(waiting_count: int) -> float:
        """Returns the CPU time that a package takes from a backlog to the publisher."""
        broker = FakeBroker()
        broker.dispatcher.submit([PACKAGE] * waiting_count, FakeOwner())
        began = time.thread_time()
        broker.connect()
        await published(broker, waiting_count)
        return (time.thread_time() - began) / waiting_count

    short_s = min([await cost_s(100) for _ in range(50)])
    long_s = await cost_s(LONG_COUNT)
    # Little more than 1 where the cost is linear: caches and the garbage collector make the difference.
    ratio = long_s / short_s
    assert ratio < 4, f"{long_s * 1e6:.1f} µs each of {LONG_COUNT}, {short_s * 1e6:.1f} µs each of 100: {ratio:.1f}"


@on_loop
async def test_the_loop_is_given_back_after_a_slice_whatever_is_submitted_meanwhile() -> None:
    broker, owner = FakeBroker(), FakeOwner()
    broker.dispatcher.submit([PACKAGE] * 20 * SLICE, owner)
    broker.connect()
    counts = [len(broker.tokens)]
    while counts[-1] < 20 * SLICE + len(counts) - 1:
        broker.dispatcher.submit([PACKAGE], owner)
        await asyncio.sleep(0)
        counts.append(len(broker.tokens))
    slices = [after - before for before, after in pairwise(counts)]
    assert max(slices) <= SLICE, slices
