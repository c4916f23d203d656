"""Packages that come twice, late, in another order, or to a database that holds a part of them already."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pytest

from provgate_broker.topology.policy import Operation, RangePolicy, WriteMethod, binding_key, exchange_of, location_id
from provgate_storage import get_provenance_storage
from tests.faults.load import random_writes
from tests.faults.postgresql import rows_held
from tests.faults.system import System
from tests.support.entries import Entry, encode_package
from tests.support.fix_stack import FEW_RANGES
from tests.support.loss_checker import Call
from tests.support.packages import DATE, AmqpSender, content_ids, publish

pytestmark = pytest.mark.faults


@dataclass(frozen=True)
class Package:
    """A package, and how many rows a reply to it counts."""

    exchange: str
    queue: str
    body: bytes
    row_count: int


@pytest.fixture(scope="module")
def running(shared_system: System) -> System:
    """A system whose worker program runs."""
    shared_system.stack.start_workers()
    return shared_system


@pytest.fixture
def sender(running: System) -> Iterator[AmqpSender]:
    with AmqpSender(running.url) as sender:
        yield sender


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_twice_late_and_in_any_order(running: System, sender: AmqpSender, seed: int) -> None:
    draw = random.Random(seed)
    writes = list(islice(random_writes(seed), 60))
    packages = [package for method, *arguments in writes for package in packages_of(method, *arguments)]
    assert len({package.queue for package in packages}) == len(list(RangePolicy.of(FEW_RANGES).queues()))
    sent = [package for package in packages for _ in range(draw.randint(1, 3))]
    draw.shuffle(sent)
    late = len(sent) // 3
    for wave in (sent[late:], sent[:late]):
        ids = [sender.publish(package.exchange, package.queue, package.body) for package in wave]
        assert sender.replies_to(*ids, timeout_s=60) == [package.row_count for package in wave]
    for method, *arguments in writes:
        running.checker.record(Call(method, tuple(arguments), acked=True, error=None))
    running.check()


def packages_of(method: str, *arguments: Any) -> list[Package]:
    """Returns a write as packages, one for each queue of it."""
    relation = arguments[0] if len(arguments) == 2 else None
    operation = Operation(WriteMethod(method), relation)
    policy = RangePolicy.of(FEW_RANGES)
    exchange = exchange_of(operation)
    by_range: dict[int, list[Entry]] = {}
    for entry in entries_of(arguments[-1]):
        id = entry[0] if method != "location_add" else location_id(entry[0])
        by_range.setdefault(policy.range_of(exchange, id), []).append(entry)
    return [
        Package(exchange.value, binding_key(operation, number), encode_package(entries), len(entries))
        for number, entries in by_range.items()
    ]


def entries_of(argument: Any) -> list[Entry]:
    if isinstance(argument, set):
        return [(path,) for path in argument]
    return [
        entry
        for id, value in argument.items()
        for entry in ([(id, row.dst, row.path) for row in value] if isinstance(value, set) else [(id, value)])
    ]


def test_a_redelivered_package_of_which_a_part_is_stored_is_acked_when_all_of_it_is(
    running: System, sender: AmqpSender
) -> None:
    ids = content_ids(100, first_byte=0x10)
    with get_provenance_storage(**running.storage_config) as storage:
        storage.content_add(dict.fromkeys(ids[:50], DATE))
    with rows_held(running.dsn, ids[-1:]) as held:
        (sent,) = publish(sender, ids)
        held.wait_waiting("INSERT")
        running.workers.kill()
        running.stack.start_workers()
        # The session of the killed program waits too, and does not know yet that its client is gone.
        held.wait_waiting("INSERT", 2)
        assert sender.replies_to(*publish(sender, content_ids(10, first_byte=0xF0))) == [10]
        assert sent not in sender.replies
    assert sender.replies_to(sent) == [100]
    assert running.stored_count(ids) == 100
