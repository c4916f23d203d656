"""Ctrl-C ends a call, and leaves no lock behind."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest

from provgate_client.cli.connection import interruptible


class Closable:
    """A storage whose one call waits until it is closed, and fails then."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.closed_count = 0
        self.given_up = False

    def close(self) -> None:
        with self.condition:
            self.closed_count += 1
            self.condition.notify_all()

    def give_up(self) -> None:
        with self.condition:
            self.given_up = True
            self.condition.notify_all()

    def call(self) -> None:
        limit = threading.Timer(10, self.give_up)
        with self.condition:
            limit.start()
            threading.Timer(0.1, lambda: press()).start()
            # Without a time of its own, at whose end the main thread would run and see the signal.
            self.condition.wait_for(lambda: self.closed_count or self.given_up)
        limit.cancel()
        assert not self.given_up
        raise OSError("closed")


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def storage() -> Any:
    return Closable()


def test_where_a_lock_may_be_held_the_call_ends_by_itself(storage: Any) -> None:
    with pytest.raises(KeyboardInterrupt) as caught, interruptible(storage):
        storage.call()
    # Raised in the place of the call's own error: nothing was raised while it waited.
    assert isinstance(caught.value.__cause__, OSError)
    assert storage.condition.acquire(timeout=1)


def test_a_signal_that_does_not_wake_the_main_thread_ends_the_call_too(
    storage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As one does that comes just before the main thread begins to wait.
    monkeypatch.setattr(f"{__name__}.press", lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt) as caught, interruptible(storage):
        storage.call()
    # Not the end of its own patience.
    assert isinstance(caught.value.__cause__, OSError)


def test_elsewhere_it_is_raised_at_once_and_the_storage_is_closed(storage: Any) -> None:
    with pytest.raises(KeyboardInterrupt) as caught, interruptible(storage):
        press()
    assert caught.value.__cause__ is None
    with storage.condition:
        assert storage.condition.wait_for(lambda: storage.closed_count == 1, timeout=10)


def test_the_second_one_is_raised_wherever_it_is(storage: Any) -> None:
    presses = iter([press])
    storage.close = lambda: [press_once() for press_once in presses]
    with pytest.raises(KeyboardInterrupt) as caught, interruptible(storage):
        storage.call()
    assert caught.value.__cause__ is None


def test_a_call_that_does_not_end_is_left(storage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provgate_client.cli.connection._PATIENCE_S", 0.2)
    storage.close = lambda: None
    with pytest.raises(KeyboardInterrupt) as caught, interruptible(storage):
        storage.call()
    assert caught.value.__cause__ is None


def test_other_errors_pass_and_the_handler_goes(storage: Any) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(OSError, match="other"), interruptible(storage):
        raise OSError("other")
    assert signal.getsignal(signal.SIGINT) is before
