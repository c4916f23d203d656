"""Cuts entries of any number into messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, TypeVar

from provgate_client.adapter.entries import EntryKind

E = TypeVar("E")

MESSAGE_MAX_BYTES: Final = 3 * 1024 * 1024
"""What a message takes at most. gRPC servers refuse more than 4 MiB."""


# Enough that what a piece costs beside its entries does not show.
_CHECKED_AT_ONCE_COUNT: Final = 10_000


def check_entries(kind: EntryKind[E], entries: Iterable[E]) -> int:
    """Checks entries of any number, in bounded memory, and returns how many there are.

    Raises:
        InvalidValueError: one cannot be kept.
    """
    count = 0
    remaining = iter(entries)
    while part := list(islice(remaining, _CHECKED_AT_ONCE_COUNT)):
        kind.check(part)
        count += len(part)
    return count


def requests_of(kind: EntryKind[E], entries: Iterable[E], max_count: int) -> Iterator[tuple[int, Any]]:
    """Yields each message behind the number of its entries, in the order of the entries, none of them empty.

    No more than `max_count` of `entries` are taken ahead of the message that is yielded.
    """
    max_count = min(max_count, MESSAGE_MAX_BYTES // kind.fixed_bytes)
    remaining = iter(entries)
    while part := list(islice(remaining, max_count)):
        for small in _small_parts(kind, part):
            yield len(small), kind.request(small)


def _small_parts(kind: EntryKind[E], part: list[E]) -> Iterator[list[E]]:
    """Yields `part`, halved until each piece fits a message. Most parts do as they are, and are measured only once."""
    if len(part) == 1 or _size_bytes(kind, part) <= MESSAGE_MAX_BYTES:
        yield part
        return
    middle = len(part) // 2
    yield from _small_parts(kind, part[:middle])
    yield from _small_parts(kind, part[middle:])


def _size_bytes(kind: EntryKind[E], part: list[E]) -> int:
    text_bytes = sum(map(kind.text_bytes, part)) if kind.text_bytes is not None else 0
    return kind.fixed_bytes * len(part) + text_bytes
