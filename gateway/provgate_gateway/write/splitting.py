"""Splits the messages of a write into packages: counts, decodes and checks a message, then splits its rows by range.

A large message is split on a thread: on the event loop it would delay heartbeats and health by tens of milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

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
from provgate_gateway import errors
from provgate_gateway.rpc.entry_count import entry_count
from provgate_gateway.rpc.requests import MessageKind
from provgate_gateway.write.flow_control import Load
from provgate_storage.rows.rows import Row

M = TypeVar("M", bound=Message)

PACKAGE_MAX_BYTES: Final = 1024 * 1024

ENTRIES_MAX: Final = 200_000
"""The most entries of a message: no fewer than fit into 4 MiB with ids of 20 bytes."""

# An entry takes at least two bytes: a smaller message cannot have more.
_UNCOUNTED_MAX_BYTES: Final = 2 * ENTRIES_MAX

_ON_LOOP_MAX_BYTES: Final = 256 * 1024

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
        """What the package adds to what is unacked."""
        return Load(self.entry_count, len(self.body) + _OVERHEAD_BYTES)


class Splitter:
    """Splits messages into packages.

    Args:
        policy: the ranges.
        batch_size: the most entries of a package.
    """

    def __init__(self, policy: RangePolicy, batch_size: int) -> None:
        self._policy = policy
        self._batch_size = batch_size
        # A single thread: splitting a message takes up to 80 MiB, and two threads would not be faster in Python.
        # Flow control bounds the messages that wait for it.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="splitting")

    def close(self) -> None:
        """Gives the thread back."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def packages(self, body: bytes, kind: MessageKind[M]) -> list[Package]:
        """Returns the packages of an encoded message. Raises `CallError` if any of its entries is invalid."""
        if len(body) > _ON_LOOP_MAX_BYTES:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._packages, body, kind)
        return self._packages(body, kind)

    def _packages(self, body: bytes, kind: MessageKind[M]) -> list[Package]:
        if len(body) > _UNCOUNTED_MAX_BYTES and entry_count(body, kind.columns_field, ENTRIES_MAX) > ENTRIES_MAX:
            raise errors.too_many_entries(ENTRIES_MAX)
        try:
            request = kind.decode(body)
        except DecodeError as error:
            raise errors.malformed() from error
        return split(kind.operation(request), kind.rows(request), self._policy, self._batch_size)


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
        for piece in _pieces(of_range, batch_size)
    ]


def _pieces(rows: list[bytes], batch_size: int) -> Iterator[list[bytes]]:
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
