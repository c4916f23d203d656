"""Cuts entries of any number into messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final, TypeVar

from provgate_client.adapter.entries import EntryKind

E = TypeVar("E")

MESSAGE_MAX_BYTES: Final = 3 * 1024 * 1024
"""What a message takes at most. gRPC servers refuse more than 4 MiB."""


def requests_of(kind: EntryKind[E], entries: Iterable[E], max_count: int) -> Iterator[tuple[int, Any]]:
    """Yields each message behind the number of its entries, in the order of the entries, none of them empty.

    No more of `entries` is taken than the next message needs.
    """
    for part in _cut(kind, entries, max_count):
        yield len(part), kind.request(part)


def _cut(kind: EntryKind[E], entries: Iterable[E], max_count: int) -> Iterator[list[E]]:
    if kind.text_bytes is None:
        return _by_count(entries, min(max_count, MESSAGE_MAX_BYTES // kind.fixed_bytes))
    return _by_size(entries, max_count, kind.fixed_bytes, kind.text_bytes)


def _by_count(entries: Iterable[E], max_count: int) -> Iterator[list[E]]:
    remaining = iter(entries)
    while part := list(islice(remaining, max_count)):
        yield part


def _by_size(
    entries: Iterable[E], max_count: int, fixed_bytes: int, text_bytes: Callable[[E], int]
) -> Iterator[list[E]]:
    part: list[E] = []
    part_bytes = 0
    for entry in entries:
        entry_bytes = fixed_bytes + text_bytes(entry)
        if part and (len(part) == max_count or part_bytes + entry_bytes > MESSAGE_MAX_BYTES):
            yield part
            part, part_bytes = [], 0
        part.append(entry)
        part_bytes += entry_bytes
    if part:
        yield part
