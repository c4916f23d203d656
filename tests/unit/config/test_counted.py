"""Counts with their nouns."""

from __future__ import annotations

from provgate_runtime.counted import counted


def test_one_and_many() -> None:
    assert [counted(count, "queue") for count in (0, 1, 2)] == ["0 queues", "1 queue", "2 queues"]
    assert [counted(count, "entry", "entries") for count in (1, 5)] == ["1 entry", "5 entries"]
