"""Cutting the entries of a message into packages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from provgate_broker.topology import (
    Exchange,
    Operation,
    RangePolicy,
    WriteMethod,
    binding_key,
    exchange_of,
    location_id,
)
from provgate_broker.wire import Entry, EntryEncoder
from provgate_gateway.flow_control import Load

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
        body: as `provgate_broker.wire` encodes it.
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


def split(operation: Operation, entries: Sequence[Entry], policy: RangePolicy, batch_size: int) -> list[Package]:
    """Returns the entries as packages: one range each, at most `batch_size` entries and `PACKAGE_MAX_BYTES`.

    The order of the entries of a range is kept, within and across its packages.
    """
    exchange = exchange_of(operation)
    encoder = EntryEncoder()
    rows_by_range: dict[int, list[bytes]] = {}
    range_by_first_byte = policy.ranges_by_first_byte[exchange]
    by_location = operation.method is WriteMethod.LOCATION_ADD
    for entry in entries:
        id = location_id(entry[0]) if by_location else entry[0]
        rows_by_range.setdefault(range_by_first_byte[id[0]], []).append(encoder.row(entry))
    return [
        Package(exchange, binding_key(operation, range_number), encoder.body(rows), len(rows))
        for range_number, all_rows in rows_by_range.items()
        for rows in _cut(all_rows, batch_size)
    ]


def _cut(rows: list[bytes], batch_size: int) -> Iterator[list[bytes]]:
    piece: list[bytes] = []
    size_bytes = _FRAME_BYTES
    for row in rows:
        if piece and (len(piece) == batch_size or size_bytes + len(row) > PACKAGE_MAX_BYTES):
            yield piece
            piece, size_bytes = [], _FRAME_BYTES
        piece.append(row)
        size_bytes += len(row)
    if piece:
        yield piece
