"""Cutting the entries of a message into packages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from provgate_broker.topology.policy import (
    Exchange,
    Operation,
    RangePolicy,
    WriteMethod,
    binding_key,
    exchange_of,
    location_id,
)
from provgate_broker.wire.package import package_body
from provgate_broker.wire.rows import encode_rows
from provgate_gateway.write.flow_control import Load
from provgate_storage.rows.rows import Row

PACKAGE_MAX_BYTES: Final = 1024 * 1024

# What a package takes in memory beside its body: measured with packages of one entry.
_OVERHEAD_BYTES: Final = 600

# What a body holds beside its rows: the map, its key, and the header of the list.
_FRAME_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Package:
    """Entries of one operation and one range, encoded.

    Attributes:
        exchange: where it is published to.
        routing_key: its routing key.
        body: as `provgate_broker.wire.package` encodes it.
        entry_count: the entries in it, at least one.
    """

    exchange: Exchange
    routing_key: str
    body: bytes
    entry_count: int

    @property
    def load(self) -> Load:
        """What the package takes of what may be unacked."""
        return Load(self.entry_count, len(self.body) + _OVERHEAD_BYTES)


def split(operation: Operation, rows: Sequence[Row], policy: RangePolicy, batch_size: int) -> list[Package]:
    """Returns rows as packages: one range each, at most `batch_size` rows and `PACKAGE_MAX_BYTES`.

    The order of the rows of a range is kept, within and across its packages.
    """
    exchange = exchange_of(operation)
    by_location = operation.method is WriteMethod.LOCATION_ADD
    first_bytes = [(location_id(row[0]) if by_location else row[0])[0] for row in rows]
    range_by_first_byte = policy.ranges_by_first_byte[exchange]
    encoded_by_range: list[list[bytes]] = [[] for _ in policy.ranges(exchange)]
    for first_byte, encoded in zip(first_bytes, encode_rows(rows, operation), strict=True):
        encoded_by_range[range_by_first_byte[first_byte]].append(encoded)
    return [
        Package(exchange, binding_key(operation, range_number), package_body(piece), len(piece))
        for range_number, of_range in enumerate(encoded_by_range)
        for piece in _cut(of_range, batch_size)
    ]


def _cut(rows: list[bytes], batch_size: int) -> Iterator[list[bytes]]:
    if len(rows) <= batch_size and _FRAME_BYTES + sum(map(len, rows)) <= PACKAGE_MAX_BYTES:
        if rows:
            yield rows
        return
    piece: list[bytes] = []
    size_bytes = _FRAME_BYTES
    for row in rows:
        if piece and (len(piece) == batch_size or size_bytes + len(row) > PACKAGE_MAX_BYTES):
            yield piece
            piece, size_bytes = [], _FRAME_BYTES
        piece.append(row)
        size_bytes += len(row)
    yield piece
