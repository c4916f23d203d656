"""The packages of one work queue that wait in memory to be stored."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from provgate_broker.topology.policy import Operation, parse_binding_key
from provgate_workers.package import Package, State


class RangeQueue:
    """The packages of one work queue that wait, in their order.

    Args:
        name: the name of the work queue, which is a binding key.

    Attributes:
        operation, range_number: what its packages are.
        row_count: the rows that wait, as the packages claim; 0 only if no package waits.
        in_batch: whether packages of it are being stored. It is in one batch at a time: one writer for each range.
    """

    def __init__(self, name: str) -> None:
        self.operation: Operation
        self.range_number: int
        self.operation, self.range_number = parse_binding_key(name)
        self.row_count = 0
        self.in_batch = False
        self._waiting: deque[Package] = deque()

    def append(self, package: Package) -> None:
        """Adds a package at the end."""
        self._waiting.append(package)
        self.row_count += package.row_count

    def put_back(self, packages: Iterable[Package]) -> None:
        """Adds packages that were taken at the front again, in their order."""
        for package in reversed(list(packages)):
            package.state = State.WAITING
            self._waiting.appendleft(package)
            self.row_count += package.row_count

    def take(self, row_count: int, size_bytes: int) -> list[Package]:
        """Takes packages until they have `row_count` rows or `size_bytes` bytes. One at least, whatever its size."""
        taken: list[Package] = []
        while self._waiting and (not taken or (row_count > 0 and size_bytes > 0)):
            package = self._waiting.popleft()
            package.state = State.STORING
            row_count -= package.row_count
            size_bytes -= len(package.delivery.body)
            self.row_count -= package.row_count
            taken.append(package)
        return taken

    def clear(self) -> list[Package]:
        """Forgets the packages that wait, and returns them."""
        dropped = list(self._waiting)
        self._waiting.clear()
        self.row_count = 0
        return dropped
