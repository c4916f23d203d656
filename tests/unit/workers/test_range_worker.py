from __future__ import annotations

from provgate_broker.consume.delivery import Delivery
from provgate_broker.topology.policy import Exchange, Operation, binding_key, operations_of
from provgate_workers.consume.range_queues import RangeWorker, Share
from provgate_workers.program.assignment import Range
from tests.support.entries import encode_package
from tests.unit.deliveries import delivery

KEYS = [binding_key(operation, 10) for operation in operations_of(Exchange.CONTENT)]


def new_worker() -> RangeWorker:
    operations = {binding_key(operation, 10): operation for operation in operations_of(Exchange.CONTENT)}
    return RangeWorker(Range(Exchange.CONTENT, 10), operations)


def package(tag: int, row_count: int = 1, queue: str = KEYS[0]) -> Delivery:
    return delivery(queue, encode_package([(b"i" * 20,)] * row_count), delivery_tag=tag)


def next_of(worker: RangeWorker) -> Operation:
    return next(iter(worker.waiting_operations))


def take(worker: RangeWorker, row_count: int, size_bytes: int = 2**30) -> Share:
    return worker.take(next_of(worker), row_count, size_bytes)


def tags(deliveries: list[Delivery]) -> list[int]:
    return [delivery.delivery_tag for delivery in deliveries]


def test_a_single_package_does_not_wait_for_company() -> None:
    worker = new_worker()
    assert not worker.waiting_operations
    worker.add(package(1))
    assert tags(take(worker, 10_000).deliveries) == [1]
    assert not worker.waiting_operations


def test_a_batch_is_all_that_waits_in_one_queue_up_to_its_size() -> None:
    worker = new_worker()
    for tag in range(1, 6):
        worker.add(package(tag, row_count=40))
    assert tags(take(worker, 100).deliveries) == [1, 2, 3]
    assert tags(take(worker, 100).deliveries) == [4, 5]


def test_a_package_larger_than_a_batch_goes_alone() -> None:
    worker = new_worker()
    worker.add(package(1, row_count=1000))
    worker.add(package(2))
    assert tags(take(worker, 100).deliveries) == [1]


def test_a_body_that_is_no_package_counts_as_one_row() -> None:
    worker = new_worker()
    worker.add(delivery(KEYS[0], b"nonsense", delivery_tag=1))
    worker.add(package(2))
    assert worker.waiting_row_count(share_operation()) == 2
    assert tags(take(worker, 100).deliveries) == [1, 2]


def test_a_batch_is_bounded_by_bytes_too() -> None:
    worker = new_worker()
    for tag in range(1, 4):
        worker.add(package(tag, row_count=40))
    size_bytes = len(package(1, row_count=40).body)
    share = take(worker, 1000, size_bytes + 1)
    assert (tags(share.deliveries), share.row_count, share.size_bytes) == ([1, 2], 80, 2 * size_bytes)
    assert worker.waiting_row_count(share_operation()) == 40


def share_operation() -> Operation:
    return operations_of(Exchange.CONTENT)[0]


def test_what_is_put_back_goes_first() -> None:
    worker = new_worker()
    worker.add(package(1))
    share = take(worker, 1)
    worker.add(package(2))
    worker.put_back(share.deliveries)
    worker.put_back([])
    assert tags(take(worker, 10).deliveries) == [1, 2]


def test_what_a_queue_had_waiting_can_be_dropped() -> None:
    worker = new_worker()
    worker.add(package(1))
    worker.add(package(9, queue=KEYS[1]))
    assert tags(worker.drop(KEYS[0])) == [1]
    assert worker.drop(KEYS[0]) == []
    assert tags(take(worker, 10).deliveries) == [9]


def test_of_an_operation_that_nothing_waits_for_nothing_is_taken() -> None:
    worker = new_worker()
    worker.add(package(1))
    (_, other, _) = operations_of(Exchange.CONTENT)
    assert worker.take(other, 10, 2**30).deliveries == []
    assert worker.take(operations_of(Exchange.REVISION)[0], 10, 2**30).deliveries == []
    assert tags(take(worker, 10).deliveries) == [1]
