"""Calls to the storage, tried again while that can help."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    retry_if_result,
    sleep_using_event,
    stop_after_delay,
    stop_when_event_set,
    wait_random_exponential,
)

from provgate_client.git.errors import StorageGaveUpError
from provgate_client.git.progress import ProgressMeter
from provgate_storage.errors import RetryableStorageError

R = TypeVar("R")

_PAUSE_S = 0.1
_PAUSE_MAX_S = 10.0


class StorageCalls:
    """Makes calls until they succeed. Thread-safe.

    A write that returns False, and any call that raises `RetryableStorageError`, is made again, after a pause that
    grows and is jittered. Every write is idempotent, so it does not matter what an attempt that failed has left.
    """

    def __init__(self, meter: ProgressMeter, give_up_after_s: float) -> None:
        self._meter = meter
        self._give_up_after_s = give_up_after_s
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Ends all pauses, and every call that would be made again. Idempotent."""
        self._stopped.set()

    def write(self, what: str, count: int, call: Callable[[], bool]) -> None:
        """Makes a write of `count` entries.

        Raises:
            StorageGaveUpError: it was never taken.
        """
        self._meter.sent(count)
        self._until_taken(what, call)
        self._meter.acked(what, count)

    def read(self, what: str, call: Callable[[], R]) -> R:
        """Makes a read.

        Raises:
            StorageGaveUpError: it was never answered.
        """
        return self._until_taken(what, call)

    def _until_taken(self, what: str, call: Callable[[], R]) -> R:
        attempts = Retrying(
            retry=retry_if_exception_type(RetryableStorageError) | retry_if_result(lambda taken: taken is False),
            wait=wait_random_exponential(_PAUSE_S, _PAUSE_MAX_S),
            stop=stop_after_delay(self._give_up_after_s) | stop_when_event_set(self._stopped),
            sleep=sleep_using_event(self._stopped),
            retry_error_callback=lambda state: _give_up(what, state),
        )
        return attempts(call)


def _give_up(what: str, state: RetryCallState) -> None:
    outcome = state.outcome
    cause = outcome.exception() if outcome is not None else None
    reason = "it was not taken" if cause is None else str(cause)
    raise StorageGaveUpError(
        f"{what}: {reason}, after {state.attempt_number} attempts; run the same index again to go on"
    ) from cause
