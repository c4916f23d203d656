"""A range worker: the packages of one exchange and range that wait, and which of them go next."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from provgate_broker.consume.delivery import Delivery
from provgate_broker.topology.policy import Operation
from provgate_broker.wire.package import claimed_row_count
from provgate_workers.program.assignment import Range


@dataclass(frozen=True, slots=True)
class Share:
    """What a range worker has in a batch: packages of one of its queues.

    Attributes:
        worker: the range worker.
        deliveries: the packages, in their order.
        row_count: the rows that they say that they hold; one that tells none counts as one.
        size_bytes: of their bodies.
    """

    worker: RangeWorker
    deliveries: list[Delivery]
    row_count: int
    size_bytes: int


class RangeWorker:
    """The bookkeeping of one range. Of an operation it takes part in one batch at a time: a table has one writer here.

    Args:
        hosted: the range.
        operations: the operation of each of its queues, by name.

    Attributes:
        range: its range.
        busy: the operations of which a batch that it takes part in is being stored.
    """

    def __init__(self, hosted: Range, operations: dict[str, Operation]) -> None:
        self.range = hosted
        self.busy: set[Operation] = set()
        self._operations = operations
        self._waiting: dict[Operation, _Line] = {}

    @property
    def waiting_operations(self) -> Iterable[Operation]:
        """The operations that packages wait for."""
        return self._waiting.keys()

    def waiting_row_count(self, operation: Operation) -> int:
        """Returns how many rows wait, counted as in `Share`; 0 only where no package waits."""
        line = self._waiting.get(operation)
        return line.row_count if line is not None else 0

    def add(self, delivery: Delivery) -> None:
        """Lets a package wait."""
        self._waiting.setdefault(self._operations[delivery.queue], _Line()).append(delivery)

    def put_back(self, deliveries: Iterable[Delivery]) -> None:
        """Lets packages of one queue that were taken wait again, before all others of it."""
        returned = list(deliveries)
        if returned:
            line = _Line()
            for delivery in (*returned, *self.drop(returned[0].queue)):
                line.append(delivery)
            self._waiting[self._operations[returned[0].queue]] = line

    def drop(self, queue: str) -> list[Delivery]:
        """Forgets the waiting packages of a queue and returns them."""
        line = self._waiting.pop(self._operations[queue], None)
        return [delivery for delivery, _ in line.deliveries] if line is not None else []

    def take(self, operation: Operation, row_count: int, size_bytes: int) -> Share:
        """Takes packages of an operation that wait, as many as it takes to have so many rows, or bytes of bodies.

        At least one, whatever its size; none where none waits.
        """
        line = self._waiting.pop(operation, _Line())
        share = Share(self, *line.take(row_count, size_bytes))
        if line.deliveries:
            self._waiting[operation] = line
        return share


class _Line:
    """Packages that wait for one operation, with the rows of each."""

    def __init__(self) -> None:
        self.deliveries: deque[tuple[Delivery, int]] = deque()
        self.row_count = 0

    def append(self, delivery: Delivery) -> None:
        # One that holds no rows, as far as can be told, is work all the same.
        row_count = max(1, claimed_row_count(delivery.body))
        self.deliveries.append((delivery, row_count))
        self.row_count += row_count

    def take(self, row_count: int, size_bytes: int) -> tuple[list[Delivery], int, int]:
        taken: list[Delivery] = []
        taken_rows = taken_bytes = 0
        while self.deliveries and (not taken or (taken_rows < row_count and taken_bytes < size_bytes)):
            delivery, count = self.deliveries.popleft()
            taken.append(delivery)
            taken_rows += count
            taken_bytes += len(delivery.body)
        self.row_count -= taken_rows
        return taken, taken_rows, taken_bytes
