"""Counts with their nouns."""

from __future__ import annotations


def counted(count: int, one: str, many: str | None = None) -> str:
    """Returns, say, `1 queue` or `2 queues`.

    Args:
        count: how many.
        one: the noun in the singular.
        many: the plural; `one` and an s where None.
    """
    return f"{count} {one if count == 1 else many or f'{one}s'}"
