"""A range worker: the packages of one exchange and range that wait, and which of them go next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from provgate_broker.delivery import Delivery
from provgate_broker.topology import Operation
from provgate_broker.wire import claimed_row_count
from provgate_workers.assignment import Range


@dataclass(frozen=True, slots=True)
class Share:
    """What a range worker has in a batch: packages of one of its queues."""

    worker: RangeWorker
    deliveries: list[Delivery]


class RangeWorker:
    """The bookkeeping of one range. It writes one batch at a time, so that its rows have one writer here.

    Args:
        hosted: the range.
        operations: the operation of each of its queues, by name.

    Attributes:
        range: its range.
        busy: whether one of its batches is being stored.
    """

    def __init__(self, hosted: Range, operations: dict[str, Operation]) -> None:
        self.range = hosted
        self.busy = False
        self._operations = operations
        self._queues = {operation: queue for queue, operation in operations.items()}
        # The queues with packages, longest served ago first.
        self._waiting: dict[str, list[Delivery]] = {}

    @property
    def has_waiting(self) -> bool:
        """Whether packages wait."""
        return bool(self._waiting)

    def add(self, delivery: Delivery) -> None:
        """Lets a package wait."""
        self._waiting.setdefault(delivery.queue, []).append(delivery)

    def put_back(self, deliveries: Iterable[Delivery]) -> None:
        """Lets packages of one queue that were taken wait again, before all others."""
        returned = list(deliveries)
        if returned:
            queue = returned[0].queue
            returned.extend(self._waiting.pop(queue, []))
            self._waiting = {queue: returned} | self._waiting

    def drop(self, queue: str) -> list[Delivery]:
        """Forgets the waiting packages of a queue and returns them."""
        return self._waiting.pop(queue, [])

    @property
    def next_operation(self) -> Operation:
        """The operation that waits for longest. There must be one."""
        return self._operations[next(iter(self._waiting))]

    def take(self, operation: Operation, row_count: int) -> Share:
        """Takes packages of an operation that wait: at least one, and no more than it takes to have `row_count` rows.

        None where none waits, as for an operation of another exchange.
        """
        queue = self._queues.get(operation, "")
        waiting = self._waiting.pop(queue, [])
        count = _package_count(waiting, row_count)
        if count < len(waiting):
            self._waiting[queue] = waiting[count:]
        return Share(self, waiting[:count])


def row_count_of(deliveries: Iterable[Delivery]) -> int:
    """Returns how many rows packages say that they hold."""
    return sum(claimed_row_count(delivery.body) for delivery in deliveries)


def _package_count(deliveries: list[Delivery], wanted_row_count: int) -> int:
    row_count = 0
    for index, delivery in enumerate(deliveries):
        row_count += claimed_row_count(delivery.body)
        if row_count >= wanted_row_count:
            return index + 1
    return len(deliveries)
