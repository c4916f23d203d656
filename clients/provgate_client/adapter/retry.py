"""Which calls are repeated, when, and for how long."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable
from typing import Final

import grpc
import tenacity
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from provgate_client.errors import CallError

_BACKOFF: Final = tenacity.wait_random_exponential(multiplier=0.2, max=5.0)
_ALWAYS: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
_WITH_RETRY_INFO: Final = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)


def may_be_repeated(error: BaseException) -> bool:
    """Returns whether a call that ended with `error` is repeated without asking the caller.

    So are UNAVAILABLE; CANCELLED, by which gRPC sheds calls (a caller causes it by closing the storage or a generator,
    and then there is no `CallError`); RESOURCE_EXHAUSTED and DEADLINE_EXCEEDED where the gateway adds a RetryInfo:
    without it they are a limit or a deadline of the caller's own.
    """
    if not isinstance(error, CallError):
        return False
    if error.status.code in _ALWAYS:
        return True
    return error.status.code in _WITH_RETRY_INFO and error.status.retry_delay_s is not None


def retrying(limit_s: float, last_progress_s: Callable[[], float], closed: threading.Event) -> tenacity.Retrying:
    """Returns the loop that repeats a call, with back-off and jitter and never sooner than the gateway asks.

    Args:
        limit_s: for how long a call is repeated without progress, counted from the first failure after the last
            progress; 0 for never. The error is then raised as it is.
        last_progress_s: the time of the last progress, on the monotonic clock.
        closed: ends a wait at once when it is set.
    """
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(may_be_repeated),
        wait=_Wait(last_progress_s),
        stop=_Patience(limit_s, last_progress_s),
        sleep=tenacity.sleep_using_event(closed),
        reraise=True,
    )


class _Patience(stop_base):
    """Ends with the limit. What was before the first failure does not count: a dead link takes a minute to notice."""

    def __init__(self, limit_s: float, last_progress_s: Callable[[], float]) -> None:
        self._limit_s = limit_s
        self._last_progress_s = last_progress_s
        self._failing_since_s: float | None = None

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        now_s = time.monotonic()
        if self._failing_since_s is None or self._last_progress_s() > self._failing_since_s:
            self._failing_since_s = now_s
        return now_s + retry_state.upcoming_sleep - self._failing_since_s > self._limit_s


class _Wait(wait_base):
    """Grows with the attempts since the last progress, and is never shorter than the gateway asks."""

    def __init__(self, last_progress_s: Callable[[], float]) -> None:
        self._last_progress_s = last_progress_s
        self._seen_progress_s = last_progress_s()
        self._attempts_before_it = 0

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        if self._last_progress_s() != self._seen_progress_s:
            self._seen_progress_s = self._last_progress_s()
            self._attempts_before_it = retry_state.attempt_number - 1
        since = copy.copy(retry_state)
        since.attempt_number -= self._attempts_before_it
        error = retry_state.outcome.exception() if retry_state.outcome else None
        asked_s = error.status.retry_delay_s if isinstance(error, CallError) else None
        return max(_BACKOFF(since), asked_s or 0.0)
