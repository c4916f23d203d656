from __future__ import annotations

import threading

from provgate_storage.postgresql.connections import Watchdog


def test_a_block_that_takes_too_long_is_told() -> None:
    watchdog, told = Watchdog(), threading.Event()
    with watchdog.watch(0.05, told.set):
        assert told.wait(10)


def test_a_block_that_is_left_in_time_is_not() -> None:
    watchdog, early, late = Watchdog(), threading.Event(), threading.Event()
    with watchdog.watch(0.05, early.set):
        pass
    with watchdog.watch(0.2, late.set):
        assert late.wait(10)
    assert not early.is_set()


def test_a_sooner_deadline_is_kept_while_a_later_one_is_waited_for() -> None:
    watchdog, sooner, later = Watchdog(), threading.Event(), threading.Event()
    with watchdog.watch(600, later.set), watchdog.watch(0.05, sooner.set):
        assert sooner.wait(10)
    assert not later.is_set()
