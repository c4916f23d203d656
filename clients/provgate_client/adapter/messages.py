"""Cuts entries of any number into messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, TypeVar

from provgate_client.adapter.entries import EntryKind

E = TypeVar("E")

MESSAGE_MAX_BYTES: Final = 3 * 1024 * 1024
"""What a message takes at most. gRPC servers refuse more than 4 MiB."""

FIRST_MESSAGE_COUNT: Final = 10_000
"""Entries of the first message at most; each may hold twice as many as the one before it.

The sooner a first message is complete, the sooner gateway, workers and database begin; the larger a message, the less
its entries cost them.
"""

# Entries that are looked at together: so few that Python's garbage collector is not called to look at all that the
# caller holds, which took half of the time of a write of 100,000 rows of a relation.
_PIECE_COUNT: Final = 500


def check_entries(kind: EntryKind[E], entries: Iterable[E]) -> int:
    """Checks entries of any number, in bounded memory, and returns how many there are.

    Raises:
        InvalidValueError: one cannot be kept.
    """
    count = 0
    remaining = iter(entries)
    while piece := list(islice(remaining, _PIECE_COUNT)):
        kind.check(piece)
        count += len(piece)
    return count


def requests_of(kind: EntryKind[E], entries: Iterable[E], max_count: int) -> Iterator[tuple[int, Any]]:
    """Yields each message behind the number of its entries, in the order of the entries, none of them empty.

    No more than `max_count` of `entries` are taken ahead of the message that is yielded.
    """
    remaining = iter(entries)
    limit_count = min(FIRST_MESSAGE_COUNT, max_count)
    message = _Message()
    while piece := list(islice(remaining, min(_PIECE_COUNT, limit_count - message.count))):
        for part, size_bytes in _fitting(kind, piece):
            if not message.has_room_for(size_bytes):
                yield message.count, message.request
                message = _Message()
            message.add(kind.request(part), len(part), size_bytes)
        if message.count >= limit_count:
            yield message.count, message.request
            message = _Message()
            limit_count = min(2 * limit_count, max_count)
    if message.count:
        yield message.count, message.request


class _Message:
    """A message that grows."""

    def __init__(self) -> None:
        self.request: Any = None
        self.count = 0
        self._size_bytes = 0

    def has_room_for(self, size_bytes: int) -> bool:
        return self.request is None or self._size_bytes + size_bytes <= MESSAGE_MAX_BYTES

    def add(self, request: Any, count: int, size_bytes: int) -> None:
        if self.request is None:
            self.request = request
        else:
            self.request.MergeFrom(request)
        self.count += count
        self._size_bytes += size_bytes


def _fitting(kind: EntryKind[E], piece: list[E]) -> Iterator[tuple[list[E], int]]:
    """Yields a piece with its size, halved until each part fits a message. Most do as they are."""
    size_bytes = kind.fixed_bytes * len(piece)
    if kind.text_bytes is not None:
        size_bytes += sum(map(kind.text_bytes, piece))
    if len(piece) == 1 or size_bytes <= MESSAGE_MAX_BYTES:
        yield piece, size_bytes
        return
    middle = len(piece) // 2
    yield from _fitting(kind, piece[:middle])
    yield from _fitting(kind, piece[middle:])
