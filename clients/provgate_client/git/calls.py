"""Calls to the storage that are repeated until they succeed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from tenacity import (
    RetryError,
    Retrying,
    retry_if_exception_type,
    retry_if_result,
    sleep_using_event,
    stop_after_delay,
    stop_when_event_set,
    wait_random_exponential,
)

from provgate_client.git.progress import ProgressMeter
from provgate_client.git.settings import StorageGaveUpError
from provgate_storage.errors import RetryableStorageError

R = TypeVar("R")

_PAUSE_S = 0.1
_PAUSE_MAX_S = 10.0


class StorageCalls:
    """Repeats calls until they succeed, and counts the entries of writes. Thread-safe.

    A write that returns False, and any call that raises `RetryableStorageError`, is repeated after a pause that grows
    and is jittered. Every write is idempotent, so the partial result of a failed attempt does no harm.
    """

    def __init__(self, meter: ProgressMeter, give_up_after_s: float) -> None:
        self._meter = meter
        self._give_up_after_s = give_up_after_s
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Ends all pauses, and every call that would be repeated. Idempotent."""
        self._stopped.set()

    def write(self, what: str, count: int, call: Callable[[], bool]) -> None:
        """Makes a write of `count` entries.

        Raises:
            StorageGaveUpError: no attempt succeeded in time.
        """
        self._meter.add(sent=count)
        self._repeat(what, call)
        self._meter.acked(what, count)

    def read(self, what: str, call: Callable[[], R]) -> R:
        """Makes a read, and returns its result.

        Raises:
            StorageGaveUpError: no attempt succeeded in time.
        """
        return self._repeat(what, call)

    def _repeat(self, what: str, call: Callable[[], R]) -> R:
        attempts = Retrying(
            retry=retry_if_exception_type(RetryableStorageError) | retry_if_result(_is_refused),
            wait=wait_random_exponential(_PAUSE_S, _PAUSE_MAX_S),
            stop=stop_after_delay(self._give_up_after_s) | stop_when_event_set(self._stopped),
            sleep=sleep_using_event(self._stopped),
        )
        try:
            return attempts(call)
        except RetryError as error:
            last = error.last_attempt
            cause = last.exception()
            reason = "the storage did not accept it" if cause is None else str(cause)
            raise StorageGaveUpError(
                f"{what}: {reason}, after {last.attempt_number} attempts; run the same index again to continue"
            ) from cause


def _is_refused(result: object) -> bool:
    return result is False
