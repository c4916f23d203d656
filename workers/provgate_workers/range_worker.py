"""A range worker: the packages of one exchange and range that wait, and which of them go next."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from provgate_broker.delivery import Delivery
from provgate_broker.topology import Operation
from provgate_broker.wire import claimed_row_count
from provgate_workers.assignment import Range


@dataclass(frozen=True, slots=True)
class Share:
    """What a range worker has in a batch: packages of one of its queues, and how many rows they say that they hold."""

    worker: RangeWorker
    deliveries: list[Delivery]
    row_count: int


class RangeWorker:
    """The bookkeeping of one range. It takes part in one batch at a time, so that its rows have one writer here.

    Args:
        hosted: the range.
        operations: the operation of each of its queues, by name.

    Attributes:
        range: its range.
        busy: whether a batch that it takes part in is being stored.
    """

    def __init__(self, hosted: Range, operations: dict[str, Operation]) -> None:
        self.range = hosted
        self.busy = False
        self._operations = operations
        # Those with packages, longest served ago first.
        self._waiting: dict[Operation, _Line] = {}

    @property
    def has_waiting(self) -> bool:
        """Whether packages wait."""
        return bool(self._waiting)

    @property
    def waiting_operations(self) -> Iterable[Operation]:
        """The operations that packages wait for, longest served ago first."""
        return self._waiting.keys()

    def waiting_row_count(self, operation: Operation) -> int:
        """Returns how many rows wait, by what their packages say."""
        line = self._waiting.get(operation)
        return line.row_count if line is not None else 0

    def add(self, delivery: Delivery) -> None:
        """Lets a package wait."""
        self._waiting.setdefault(self._operations[delivery.queue], _Line()).append(delivery)

    def put_back(self, deliveries: Iterable[Delivery]) -> None:
        """Lets packages of one queue that were taken wait again, before all others."""
        returned = list(deliveries)
        if returned:
            operation = self._operations[returned[0].queue]
            line = _Line()
            for delivery in (*returned, *self.drop(returned[0].queue)):
                line.append(delivery)
            self._waiting = {operation: line} | self._waiting

    def drop(self, queue: str) -> list[Delivery]:
        """Forgets the waiting packages of a queue and returns them."""
        line = self._waiting.pop(self._operations[queue], None)
        return [delivery for delivery, _ in line.deliveries] if line is not None else []

    def take(self, operation: Operation, row_count: int) -> Share:
        """Takes packages of an operation that wait: at least one, and no more than it takes to have `row_count` rows.

        None where none waits, as for an operation of another exchange.
        """
        line = self._waiting.pop(operation, _Line())
        before = line.row_count
        deliveries = line.take(row_count)
        if line.deliveries:
            self._waiting[operation] = line
        return Share(self, deliveries, before - line.row_count)


class _Line:
    """Packages that wait for one operation, and how many rows they say that they hold."""

    def __init__(self) -> None:
        self.deliveries: deque[tuple[Delivery, int]] = deque()
        self.row_count = 0

    def append(self, delivery: Delivery) -> None:
        row_count = claimed_row_count(delivery.body)
        self.deliveries.append((delivery, row_count))
        self.row_count += row_count

    def take(self, row_count: int) -> list[Delivery]:
        taken: list[Delivery] = []
        wanted = row_count
        while self.deliveries and (wanted > 0 or not taken):
            delivery, count = self.deliveries.popleft()
            taken.append(delivery)
            wanted -= count
            self.row_count -= count
        return taken
