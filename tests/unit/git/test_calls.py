"""Calls to the storage that are repeated."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable

import pytest

from provgate_client.git.calls import StorageCalls
from provgate_client.git.progress import IndexProgress, ProgressMeter
from provgate_client.git.settings import StorageGaveUpError
from provgate_storage.errors import StorageError, StorageUnavailableError

AWAY = StorageUnavailableError("the database is away")


def answers(outcomes: Iterable[object]) -> Callable[[], bool]:
    remaining = iter(outcomes)

    def call() -> bool:
        outcome = next(remaining)
        if isinstance(outcome, Exception):
            raise outcome
        return bool(outcome)

    return call


def test_a_write_is_repeated_until_it_succeeds_and_counts_once() -> None:
    shown: list[IndexProgress] = []
    meter = ProgressMeter(shown.append)
    StorageCalls(meter, 30).write("content", 7, answers([False, AWAY, True]))
    assert meter.entries == {"content": 7}
    assert [(progress.entries_sent, progress.entries_acked) for progress in shown] == [(7, 0), (7, 7)]


def test_a_read_may_find_nothing() -> None:
    assert StorageCalls(ProgressMeter(None), 10).read("content_get", dict[bytes, int]) == {}


def test_it_gives_up_after_a_while() -> None:
    meter = ProgressMeter(None)
    with pytest.raises(StorageGaveUpError, match=r"content: the database is away, after \d+ attempts") as caught:
        StorageCalls(meter, 0.05).write("content", 7, answers(itertools.repeat(AWAY)))
    assert caught.value.__cause__ is AWAY
    assert not meter.entries


def test_other_errors_are_raised_at_once() -> None:
    with pytest.raises(StorageError, match="for good"):
        StorageCalls(ProgressMeter(None), 60).write("content", 1, answers([StorageError("for good"), True]))


def test_a_stop_ends_pauses() -> None:
    calls = StorageCalls(ProgressMeter(None), 3600)
    threading.Timer(0.1, calls.stop).start()
    with pytest.raises(StorageGaveUpError):
        calls.write("content", 1, answers(itertools.repeat(False)))
