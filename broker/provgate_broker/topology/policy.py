"""Which exchanges, queues and routing keys there are: pure functions that gateway and workers share.

An entry goes to the exchange of its entity, a row of a relation to the exchange of its source. Each exchange divides
the id space into ranges, and has a queue for each range and each operation of the exchange.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Final

from provgate_broker.errors import TopologyError
from provgate_storage.model import Id, Path, RelationType

DEFAULT_RANGE_COUNT: Final = 16
RANGE_COUNTS: Final = tuple(2**exponent for exponent in range(9))
NO_RELATION: Final = "unknown"


class Exchange(StrEnum):
    """The direct exchanges: one for each entity type, and one for locations."""

    CONTENT = "content"
    DIRECTORY = "directory"
    LOCATION = "location"
    ORIGIN = "origin"
    REVISION = "revision"


class WriteMethod(StrEnum):
    """The write methods of the storage interface."""

    CONTENT_ADD = "content_add"
    DIRECTORY_ADD = "directory_add"
    LOCATION_ADD = "location_add"
    ORIGIN_ADD = "origin_add"
    REVISION_ADD = "revision_add"
    RELATION_ADD = "relation_add"


@dataclass(frozen=True, slots=True)
class Operation:
    """A write method; for `relation_add` with the relation that it writes."""

    method: WriteMethod
    relation: RelationType | None = None

    def __post_init__(self) -> None:
        if (self.method is WriteMethod.RELATION_ADD) != (self.relation is not None):
            raise ValueError(f"{self.method} with relation {self.relation}")

    def __str__(self) -> str:
        return f"{self.method}.{self.relation or NO_RELATION}"

    @property
    def label(self) -> str:
        """The name in metrics: `content_add`, `relation_add.content_in_revision`."""
        return self.method.value if self.relation is None else str(self)


_EXCHANGES_OF_METHODS: Final = {
    WriteMethod.CONTENT_ADD: Exchange.CONTENT,
    WriteMethod.DIRECTORY_ADD: Exchange.DIRECTORY,
    WriteMethod.LOCATION_ADD: Exchange.LOCATION,
    WriteMethod.ORIGIN_ADD: Exchange.ORIGIN,
    WriteMethod.REVISION_ADD: Exchange.REVISION,
}


def exchanges() -> tuple[Exchange, ...]:
    """Returns all exchanges."""
    return tuple(Exchange)


def is_write(method: str) -> bool:
    """Returns whether a method of the storage interface is a write."""
    return method in tuple(WriteMethod)


def exchange_of(operation: Operation) -> Exchange:
    """Returns the exchange that handles an operation."""
    if operation.relation is not None:
        return Exchange(operation.relation.source.value)
    return _EXCHANGES_OF_METHODS[operation.method]


OPERATIONS: Final = tuple(
    [Operation(method) for method in _EXCHANGES_OF_METHODS]
    + [Operation(WriteMethod.RELATION_ADD, relation) for relation in RelationType]
)


def operations_of(exchange: Exchange) -> tuple[Operation, ...]:
    """Returns the operations that an exchange handles."""
    return tuple(operation for operation in OPERATIONS if exchange_of(operation) is exchange)


def location_id(path: Path) -> Id:
    """Returns the id that decides the range of a location: the SHA-1 of its path."""
    return hashlib.sha1(path, usedforsecurity=False).digest()


def binding_key(operation: Operation, range_number: int) -> str:
    """Returns the name of the queue of an operation and a range. It is the binding key and the routing key too."""
    return f"{operation}.{range_number:x}"


def parse_binding_key(key: str) -> tuple[Operation, int]:
    """Returns operation and range of a binding key.

    Raises:
        TopologyError: `key` is not a binding key.
    """
    try:
        method, relation, range_hex = key.split(".")
        operation = Operation(WriteMethod(method), None if relation == NO_RELATION else RelationType(relation))
        range_number = int(range_hex, 16)
    except ValueError as error:
        raise TopologyError(f"{key!r} is not a binding key") from error
    if binding_key(operation, range_number) != key or not 0 <= range_number < RANGE_COUNTS[-1]:
        raise TopologyError(f"{key!r} is not a binding key")
    return operation, range_number


@dataclass(frozen=True)
class RangePolicy:
    """The range count of each exchange, and the ranges and queues that follow from it.

    Attributes:
        counts: the range count of each exchange: a power of two, 1 to 256.
    """

    counts: Mapping[Exchange, int] = field(
        default_factory=lambda: MappingProxyType(dict.fromkeys(Exchange, DEFAULT_RANGE_COUNT))
    )

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> RangePolicy:
        """Returns the policy for range counts by exchange name; an exchange that is not named has 16 ranges.

        Raises:
            ValueError: there is no such exchange, or a count is not a power of two from 1 to 256.
        """
        for name, count in counts.items():
            if name not in tuple(Exchange):
                raise ValueError(f"{name}: there is no such exchange; there are {', '.join(Exchange)}")
            if count not in RANGE_COUNTS:
                raise ValueError(f"{name}: a range count is a power of two from 1 to 256, not {count}")
        full = {exchange: counts.get(exchange.value, DEFAULT_RANGE_COUNT) for exchange in Exchange}
        return cls(MappingProxyType(full))

    def ranges(self, exchange: Exchange) -> range:
        """Returns the numbers of the ranges of an exchange."""
        return range(self.counts[exchange])

    def range_of(self, exchange: Exchange, id: Id) -> int:
        """Returns the range of an id."""
        return self.ranges_by_first_byte[exchange][id[0]]

    @cached_property
    def ranges_by_first_byte(self) -> Mapping[Exchange, tuple[int, ...]]:
        """For each exchange, the range of an id by its first byte: contiguous slices of the id space."""
        return {exchange: tuple(byte * count // 256 for byte in range(256)) for exchange, count in self.counts.items()}

    def binding_keys(self, exchange: Exchange, range_number: int) -> tuple[str, ...]:
        """Returns the binding keys of a range: one for each operation of its exchange."""
        return tuple(binding_key(operation, range_number) for operation in operations_of(exchange))

    def routing_key(self, operation: Operation, id: Id) -> str:
        """Returns the routing key of an entry.

        Args:
            operation: the operation that adds the entry.
            id: the entry's id; for a relation row the id of its source, for a path its `location_id`.
        """
        return binding_key(operation, self.range_of(exchange_of(operation), id))

    def queues(self) -> Iterator[Queue]:
        """Yields all work queues."""
        for exchange in Exchange:
            for range_number in self.ranges(exchange):
                for operation in operations_of(exchange):
                    yield Queue(exchange, operation, range_number)


@dataclass(frozen=True, slots=True)
class Queue:
    """A work queue. It holds the packages of one operation and one range."""

    exchange: Exchange
    operation: Operation
    range_number: int

    @property
    def name(self) -> str:
        """The queue's name. It is its binding key too."""
        return binding_key(self.operation, self.range_number)
