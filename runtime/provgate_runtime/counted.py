"""Counts with their nouns, for messages."""

from __future__ import annotations


def counted(count: int, one: str, many: str | None = None) -> str:
    """Returns for example `1 queue` or `2 queues`. The plural is `many`, or `one` and an s."""
    return f"{count} {one if count == 1 else many or f'{one}s'}"
