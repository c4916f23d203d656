"""Bounds the bytes of packages that a process holds, and defers deliveries until there is memory for them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from provgate_broker.consume.delivery import Delivery
from provgate_broker.topology.policy import Operation

# The part of the bound that one operation may use, so that one whose writes stall leaves memory to the others.
_OPERATION_SHARE: Final = 4


@dataclass(frozen=True, slots=True)
class _Deferred:
    """A delivery that waits for memory, without its body, and its place among all that wait."""

    delivery: Delivery
    size_bytes: int
    place: int


class MemoryBudget:
    """Counts packages in hand against a bound. Belongs to one thread.

    A delivery that does not fit is deferred: kept without its body, in the prefetch window of its queue. When memory is
    free it is requeued, longest waiting first, and the memory is reserved for it: the broker delivers it again at once,
    and no other package takes its place. Held and reserved bytes together never exceed the bound, unless they are one
    package that is larger; those of one operation never exceed a quarter of it, unless they are one package.

    Args:
        bound_bytes: the most bytes that may be in hand.
        operations: the operation of each queue.

    Attributes:
        held_bytes: the bytes of packages in hand.
    """

    def __init__(self, bound_bytes: int, operations: Mapping[str, Operation]) -> None:
        self.held_bytes = 0
        self._bound_bytes = bound_bytes
        self._operations = operations
        self._deferred: dict[Operation, deque[_Deferred]] = {operation: deque() for operation in operations.values()}
        self._place = 0
        # Held and reserved, together.
        self._used_bytes = 0
        self._used_bytes_of: Counter[Operation] = Counter()
        # When each reservation was made, by queue and size.
        self._reservations: dict[tuple[str, int], deque[float]] = {}

    @property
    def reserved_bytes(self) -> int:
        """The bytes that are reserved for requeued packages."""
        return self._used_bytes - self.held_bytes

    def claim_reservation(self, delivery: Delivery) -> bool:
        """Returns whether memory was reserved for a delivery. The reservation ends."""
        key = (delivery.queue, len(delivery.body))
        if not delivery.redelivered or key not in self._reservations:
            return False
        self._end_reservation(*key)
        return True

    def admit(self, delivery: Delivery, *, reserved: bool) -> bool:
        """Counts a package in if it fits, and returns whether it does.

        Args:
            delivery: the package.
            reserved: whether memory was reserved for it, as `claim_reservation` says.
        """
        size_bytes = len(delivery.body)
        operation = self._operations[delivery.queue]
        if not self._fits(operation, size_bytes) or (not reserved and self._next() is not None):
            return False
        self._use(operation, size_bytes)
        self.held_bytes += size_bytes
        return True

    def free(self, delivery: Delivery) -> None:
        """Counts a package out. `requeues` says what its memory is for."""
        self.held_bytes -= len(delivery.body)
        self._use(self._operations[delivery.queue], -len(delivery.body))

    def defer(self, delivery: Delivery) -> None:
        """Keeps a delivery, without its body, until there is memory for it."""
        self._place += 1
        deferred = _Deferred(replace(delivery, body=b""), len(delivery.body), self._place)
        self._deferred[self._operations[delivery.queue]].append(deferred)

    def requeues(self, now_s: float) -> list[Delivery]:
        """Returns the deferred deliveries to requeue now, and reserves memory for them."""
        found: list[Delivery] = []
        while (deferred := self._next()) is not None:
            queue = deferred.delivery.queue
            operation = self._operations[queue]
            if not self._fits(operation, deferred.size_bytes):
                break
            self._deferred[operation].popleft()
            self._use(operation, deferred.size_bytes)
            self._reservations.setdefault((queue, deferred.size_bytes), deque()).append(now_s)
            found.append(deferred.delivery)
        return found

    def expire_reservations(self, before_s: float) -> None:
        """Ends the reservations made before a time: another consumer has those packages, or the broker lost them."""
        for key, made in list(self._reservations.items()):
            for _ in [made_at_s for made_at_s in made if made_at_s < before_s]:
                self._end_reservation(*key)

    def drop_deferred(self, queue: str) -> list[Delivery]:
        """Forgets the deferred deliveries of a queue, and its reservations. Returns the deliveries."""
        for key in [key for key in self._reservations if key[0] == queue]:
            while key in self._reservations:
                self._end_reservation(*key)
        operation = self._operations[queue]
        waiting = self._deferred[operation]
        self._deferred[operation] = deque(each for each in waiting if each.delivery.queue != queue)
        return [each.delivery for each in waiting if each.delivery.queue == queue]

    def _next(self) -> _Deferred | None:
        """Returns the longest waiting delivery of an operation that does not use up its share."""
        heads = [
            waiting[0]
            for operation, waiting in self._deferred.items()
            if waiting and self._is_within_share(operation, waiting[0].size_bytes)
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

    def _end_reservation(self, queue: str, size_bytes: int) -> None:
        made = self._reservations[queue, size_bytes]
        made.popleft()
        if not made:
            del self._reservations[queue, size_bytes]
        self._use(self._operations[queue], -size_bytes)
