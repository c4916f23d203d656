"""Calls that are made again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

import pytest

from provgate_client.git.calls import StorageCalls
from provgate_client.git.progress import IndexProgress, ProgressMeter
from provgate_client.git.settings import StorageGaveUpError
from provgate_storage.errors import StorageError, StorageUnavailableError


def answers(outcomes: Iterable[object]) -> Callable[[], bool]:
    remaining = iter(outcomes)

    def call() -> bool:
        outcome = next(remaining)
        if isinstance(outcome, Exception):
            raise outcome
        return bool(outcome)

    return call


def test_a_write_is_made_until_it_is_taken_and_counted_once() -> None:
    shown: list[IndexProgress] = []
    meter = ProgressMeter(shown.append)
    StorageCalls(meter, 10).write("content", 7, answers([False, StorageUnavailableError("away"), True]))
    assert meter.entries == {"content": 7}
    assert [(progress.entries_sent, progress.entries_acked) for progress in shown] == [(7, 0), (7, 7)]


def test_a_read_that_answers_nothing_is_an_answer() -> None:
    calls = StorageCalls(ProgressMeter(None), 10)
    assert calls.read("content_get", lambda: dict[bytes, int]()) == {}


def test_it_gives_up_after_a_while() -> None:
    meter = ProgressMeter(None)
    with pytest.raises(StorageGaveUpError, match=r"content: the database is away, after \d+ attempts") as caught:
        StorageCalls(meter, 0.05).write("content", 7, always(StorageUnavailableError("the database is away")))
    assert isinstance(caught.value.__cause__, StorageUnavailableError)
    assert not meter.entries


def always(error: Exception) -> Callable[[], bool]:
    def call() -> bool:
        raise error

    return call


def test_what_may_not_be_repeated_is_raised_at_once() -> None:
    with pytest.raises(StorageError, match="for good"):
        StorageCalls(ProgressMeter(None), 60).write("content", 1, answers([StorageError("for good"), True]))


def test_a_stop_ends_pauses() -> None:
    calls = StorageCalls(ProgressMeter(None), 60)
    threading.Timer(0.1, calls.stop).start()
    start_s = time.monotonic()
    with pytest.raises(StorageGaveUpError):
        calls.write("content", 1, lambda: False)
    assert time.monotonic() - start_s < 5
