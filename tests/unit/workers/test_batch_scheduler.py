"""Which packages are stored together, when, and what a stalled operation costs the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from provgate_broker.dead_letters.messages import MESSAGE_HEADER
from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE
from provgate_broker.topology.policy import binding_key
from provgate_storage.errors import StorageError, StorageLockedError, StorageTimeoutError
from provgate_storage.rows.rows import Row
from provgate_workers.consume.range_queues import RangeQueue
from provgate_workers.package import Package, State
from provgate_workers.store.throttle import Throttle
from tests.support.entries import encode_package
from tests.unit.deliveries import delivery
from tests.unit.workers.scenario import CONTENT_ADD, EARLY, IN_DIR, Scenario, scenario

FULL = 10_000

Failure = Callable[[str, Sequence[Row]], StorageError | None]


def too_slow(ids: set[bytes]) -> Failure:
    """Returns a failure of writes that hold one of some ids."""
    return lambda _, rows: StorageTimeoutError("too long") if ids & {row[0] for row in rows} else None


# What shares a batch.


def test_a_package_alone_starts_at_once() -> None:
    with scenario() as running:
        running.send()
        assert running.process.batches == [(CONTENT_ADD, [0])]


def test_what_came_together_is_one_batch_whatever_its_range() -> None:
    with scenario(range_count=16) as running:
        for range_number in (3, 5, 9):
            running.publish(range_number=range_number)
        running.deliver()
        assert running.process.batches == [(CONTENT_ADD, [3, 5, 9])]


def test_what_comes_while_its_operation_is_stored_gathers_longest_waiting_first() -> None:
    with scenario(range_count=16) as running:
        for range_number in (3, 3, 5, 9):
            running.send(range_number=range_number)
        assert running.process.batches == [(CONTENT_ADD, [3])]
        running.store()
        # The range that was in the batch has its turn last.
        assert running.process.batches == [(CONTENT_ADD, [5, 9, 3])]


def test_another_operation_does_not_wait_for_it() -> None:
    with scenario() as running:
        running.send()
        running.send()
        running.send(EARLY)
        assert running.process.batches == [(CONTENT_ADD, [0]), (EARLY, [0])]


def test_operations_take_turns() -> None:
    with scenario(storage_threads=2) as running:
        for operation in (CONTENT_ADD, IN_DIR, EARLY, CONTENT_ADD, CONTENT_ADD):
            running.send(operation)
        running.store()
        assert running.process.batches == [(IN_DIR, [0]), (EARLY, [0])]


@pytest.mark.parametrize("row_counts", [[FULL], [4000, 4000, 2000]])
def test_a_full_batch_starts_beside_the_one_that_runs(row_counts: list[int]) -> None:
    with scenario(range_count=16) as running:
        running.send(range_number=3)
        for range_number, row_count in enumerate(row_counts, start=5):
            assert len(running.process.batches) == 1
            running.send(range_number=range_number, row_count=row_count)
        assert running.process.batches[1:] == [(CONTENT_ADD, list(range(5, 5 + len(row_counts))))]


def test_a_range_is_in_one_batch_of_an_operation_at_a_time() -> None:
    with scenario() as running:
        running.send()
        running.send(row_count=FULL)
        assert running.process.batches == [(CONTENT_ADD, [0])]


def test_a_batch_ends_where_it_is_full() -> None:
    with scenario(range_count=16) as running:
        for range_number in range(4):
            running.publish(range_number=range_number, row_count=4000)
        running.deliver()
        assert running.process.batches == [(CONTENT_ADD, [0, 1, 2])]
        running.store()
        assert running.process.batches == [(CONTENT_ADD, [3])]


def test_a_queue_gives_packages_up_to_a_bound_of_rows_and_bytes_and_one_at_least() -> None:
    queue = RangeQueue(binding_key(CONTENT_ADD, 10))
    packages = [
        Package.of(delivery(body=encode_package([(b"i" * 20,)] * row_count)), ("", "")) for row_count in (40, 40, 40, 0)
    ]
    # A body that cannot be read is work too.
    packages.append(Package.of(delivery(body=b"nonsense"), ("", "")))
    for package in packages:
        queue.append(package)
    assert (queue.operation, queue.range_number, queue.row_count) == (CONTENT_ADD, 10, 122)
    assert queue.take(1, 1) == packages[:1]
    assert queue.take(1000, len(packages[0].delivery.body) + 1) == packages[1:3]
    assert {package.state for package in packages[:3]} == {State.STORING}
    queue.put_back(packages[1:3])
    assert queue.take(80, 2**30) == packages[1:3]
    assert (queue.row_count, queue.take(9, 9), queue.row_count) == (2, packages[3:], 0)
    assert queue.take(9, 9) == queue.clear() == []


# What a stalled operation costs the others.


def test_a_batch_that_runs_for_long_takes_no_thread_from_others() -> None:
    with scenario(storage_threads=1) as running:
        stalled = running.send()
        other = running.send(EARLY)
        assert running.process.batches == [(CONTENT_ADD, [0])]
        running.process.pass_time(2.1)
        assert running.process.batches == [(CONTENT_ADD, [0]), (EARLY, [0])]
        running.store(1)
        assert running.is_stored(other)
        # Nothing more of the stalled operation is begun, however much waits.
        waiting = running.send(row_count=FULL)
        assert running.process.batches == [(CONTENT_ADD, [0])]
        running.work()
        assert running.stored_count([stalled, waiting]) == 2


def test_a_lock_that_is_not_granted_stops_no_other_operation() -> None:
    with scenario(storage_threads=1) as running:
        running.storage.failure = lambda name, _: StorageLockedError("locked") if name == "content" else None
        locked = running.send()
        running.work(10.0)
        other = running.send(EARLY)
        running.work()
        assert (running.is_stored(locked), running.is_stored(other)) == (False, True)
        assert running.value("stalled_operations") == 1
        assert running.process.report().storage_problem is None
        running.storage.failure = lambda _name, _rows: None
        running.work(10.0)
        assert running.is_stored(locked)
        assert running.value("stalled_operations") == 0


def test_an_operation_whose_packages_went_elsewhere_stalls_no_more() -> None:
    with scenario() as running:
        running.storage.failure = lambda _name, _rows: StorageLockedError("locked")
        running.send()
        running.store()
        assert running.value("stalled_operations") == 1
        running.process.run(running.broker.lose_channels)
        running.process.pass_time(1.0)
        assert running.value("stalled_operations") == 0


def test_a_pause_that_a_later_success_ended_slows_nothing_down() -> None:
    throttle = Throttle(CONTENT_ADD, 8)
    throttle.failed(StorageLockedError("locked"), 1)
    # Of two batches that ran at once.
    throttle.stored()
    throttle.resume(waiting=True)
    assert not throttle.stalled


def test_a_batch_that_takes_too_long_is_halved() -> None:
    with scenario() as running:
        running.storage.failure = lambda _, rows: StorageTimeoutError("too long") if len(rows) > 2 else None
        packages = [running.publish() for _ in range(8)]
        running.deliver()
        running.work(20.0)
        assert running.stored_count(packages) == 8
        assert [count for _, count in running.storage.calls][:3] == [8, 4, 2]


def test_a_small_package_that_takes_too_long_is_found_before_large_ones() -> None:
    with scenario() as running:
        running.storage.failure = too_slow({running.id_of(0)})
        running.publish()
        others = [running.publish(row_count=5) for _ in range(4)]
        running.work(20.0)
        assert running.stored_count(others) == 4


def slow_and_others(running: Scenario) -> int:
    """Returns a package that times out alone, waits for its retry, and lets others be stored."""
    slow = running.publish()
    running.storage.failure = too_slow({running.id_of(slow)})
    running.work()
    running.process.pass_time(1.0)
    return slow


def test_a_package_that_times_out_alone_is_refused_once_others_were_stored_meanwhile_five_times() -> None:
    with scenario() as running:
        slow = slow_and_others(running)
        for try_number in range(5):
            assert running.broker.dead_letters() == set(), try_number
            assert running.process.batches == [(CONTENT_ADD, [0])]
            other = running.send()
            running.store(1)
            assert running.is_stored(other)
            running.store()
            running.confirm()
            running.process.pass_time(60.0)
        assert running.broker.dead_letters() == {slow}
        assert "time limit" in running.broker.queues[DEAD_LETTER_QUEUE][0].headers[MESSAGE_HEADER]


def test_it_is_not_refused_if_others_are_stored_only_between_its_tries() -> None:
    with scenario() as running:
        slow_and_others(running)
        for _ in range(20):
            # Each write ends before anything else is begun.
            running.work()
            running.send()
            running.work()
            running.process.pass_time(60.0)
        assert len(running.replies) == 20
        assert running.broker.dead_letters() == set()


def test_it_is_not_refused_if_the_broker_took_it_back_meanwhile() -> None:
    with scenario() as running:
        slow_and_others(running)
        for try_number in range(5):
            running.send()
            running.store(1)
            if try_number == 4:
                running.broker.channels[0].lose()
            running.store()
            running.confirm()
            running.process.pass_time(60.0)
        assert running.process.batches == []
        assert running.broker.dead_letters() == set()
        assert running.value("in_hand_bytes") == 0


def test_nothing_is_refused_while_nothing_is_stored() -> None:
    with scenario() as running:
        running.storage.failure = lambda _name, _rows: StorageTimeoutError("too long")
        packages = [running.publish() for _ in range(3)]
        running.work(300.0)
        assert running.storage.calls.count(("content", 1)) > 3 * 5
        assert running.broker.dead_letters() == set()
        running.storage.failure = lambda _name, _rows: None
        running.work(61.0)
        assert running.stored_count(packages) == 3
