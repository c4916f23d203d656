"""How many bytes of packages a process may hold, and which packages are deferred until there is memory for them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from provgate_broker.consume.delivery import Delivery
from provgate_broker.topology.policy import Operation

# What an operation may use, so that one whose writes stall leaves memory to the others.
_OPERATION_SHARE: Final = 4


@dataclass(frozen=True, slots=True)
class _Deferred:
    """A package that waits for memory: its delivery without the body, and its place among all that wait."""

    delivery: Delivery
    size_bytes: int
    place: int


class MemoryBudget:
    """Counts packages in hand against a bound, and defers those that do not fit. Belongs to one thread.

    A deferred package is kept without its body, and takes a place in the prefetch window of its queue. As memory
    becomes free, it is requeued, longest waiting first, and the memory is promised to it: the broker delivers it
    again at once, and nothing else takes its place. What is admitted and what is promised never exceed the bound
    together, but for one package alone that is larger; of one operation they do not exceed a quarter, but for one
    package alone.

    Args:
        bound_bytes: how much may be in hand.
        operations: the operation of each queue.
    """

    def __init__(self, bound_bytes: int, operations: Mapping[str, Operation]) -> None:
        self._bound_bytes = bound_bytes
        self._operations = operations
        self._lines: dict[Operation, deque[_Deferred]] = {operation: deque() for operation in operations.values()}
        self._place = 0
        # Bytes in hand and bytes promised, together.
        self._used_bytes = 0
        self._used_bytes_of: Counter[Operation] = Counter()
        # When each promise was given, by queue and size.
        self._promises: dict[tuple[str, int], deque[float]] = {}
        self.held_bytes = 0

    @property
    def promised_bytes(self) -> int:
        """The memory that deferred packages which were requeued will take."""
        return self._used_bytes - self.held_bytes

    def redeems(self, delivery: Delivery) -> bool:
        """Returns whether a delivery is one that memory was promised to. The promise ends."""
        size_bytes = len(delivery.body)
        if not delivery.redelivered or (delivery.queue, size_bytes) not in self._promises:
            return False
        self._end_promise(delivery.queue, size_bytes)
        return True

    def admit(self, delivery: Delivery, *, promised: bool = False) -> bool:
        """Returns whether a package may be held, and counts it then.

        Args:
            delivery: the package.
            promised: whether memory was promised to it, as `redeems` says.
        """
        size_bytes = len(delivery.body)
        operation = self._operations[delivery.queue]
        if not self._fits(operation, size_bytes) or (not promised and self._next() is not None):
            return False
        self._use(operation, size_bytes)
        self.held_bytes += size_bytes
        return True

    def defer(self, delivery: Delivery) -> None:
        """Keeps a package, without its body, until there is memory for it."""
        self._place += 1
        deferred = _Deferred(replace(delivery, body=b""), len(delivery.body), self._place)
        self._lines[self._operations[delivery.queue]].append(deferred)

    def leave(self, delivery: Delivery) -> None:
        """Counts a package out. What it leaves is for `grant`."""
        self.held_bytes -= len(delivery.body)
        self._use(self._operations[delivery.queue], -len(delivery.body))

    def grant(self, now_s: float) -> list[Delivery]:
        """Returns deferred packages that there is memory for, to be requeued; it is promised to them from now on."""
        granted: list[Delivery] = []
        while (deferred := self._next()) is not None:
            queue = deferred.delivery.queue
            operation = self._operations[queue]
            if not self._fits(operation, deferred.size_bytes):
                break
            self._lines[operation].popleft()
            self._use(operation, deferred.size_bytes)
            self._promises.setdefault((queue, deferred.size_bytes), deque()).append(now_s)
            granted.append(deferred.delivery)
        return granted

    def break_promises(self, before_s: float) -> None:
        """Ends the promises that were given before a time: those packages went elsewhere, or the broker lost them."""
        for (queue, size_bytes), given in list(self._promises.items()):
            for _ in [given_at_s for given_at_s in given if given_at_s < before_s]:
                self._end_promise(queue, size_bytes)

    def take_deferred(self, queue: str) -> list[Delivery]:
        """Forgets the deferred packages of a queue, and what is promised to it. Returns the packages."""
        for of_queue, size_bytes in [key for key in self._promises if key[0] == queue]:
            while (of_queue, size_bytes) in self._promises:
                self._end_promise(of_queue, size_bytes)
        operation = self._operations[queue]
        line = self._lines[operation]
        self._lines[operation] = deque(deferred for deferred in line if deferred.delivery.queue != queue)
        return [deferred.delivery for deferred in line if deferred.delivery.queue == queue]

    def _next(self) -> _Deferred | None:
        """Returns the longest waiting package of an operation that does not use up its share."""
        heads = [
            line[0]
            for operation, line in self._lines.items()
            if line and self._is_within_share(operation, line[0].size_bytes)
        ]
        return min(heads, key=lambda deferred: deferred.place, default=None)

    def _fits(self, operation: Operation, size_bytes: int) -> bool:
        is_within_bound = not self._used_bytes or self._used_bytes + size_bytes <= self._bound_bytes
        return is_within_bound and self._is_within_share(operation, size_bytes)

    def _is_within_share(self, operation: Operation, size_bytes: int) -> bool:
        used_bytes = self._used_bytes_of[operation]
        return not used_bytes or used_bytes + size_bytes <= self._bound_bytes // _OPERATION_SHARE

    def _use(self, operation: Operation, size_bytes: int) -> None:
        self._used_bytes += size_bytes
        self._used_bytes_of[operation] += size_bytes

    def _end_promise(self, queue: str, size_bytes: int) -> None:
        given = self._promises[queue, size_bytes]
        given.popleft()
        if not given:
            del self._promises[queue, size_bytes]
        self._use(self._operations[queue], -size_bytes)
