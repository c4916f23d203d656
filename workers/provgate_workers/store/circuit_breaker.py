"""Stops writes while the storage is in trouble, and finds out when it works again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, TypeAlias

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from provgate_runtime.outage import Outage
from provgate_storage.errors import (
    RetryableStorageError,
    StorageConflictError,
    StorageForbiddenError,
    StorageTimeoutError,
)
from provgate_workers.store.batch import StorageThreads

logger = logging.getLogger(__name__)

_BACKOFF_FIRST_S: Final = 0.2
_BACKOFF_MAX_S: Final = 5.0


def is_of_operation(trouble: RetryableStorageError | None) -> bool:
    """Returns whether a failure concerns one operation: others can be stored meanwhile.

    A lock that is not granted, conflicts without end, a time limit, a missing right: the storage answered.
    """
    return isinstance(trouble, StorageConflictError | StorageForbiddenError | StorageTimeoutError)


class _State(Enum):
    """As of a circuit breaker: CLOSED lets writes start, OPEN none, HALF_OPEN one that decides."""

    CLOSED = auto()
    OPEN = auto()
    HALF_OPEN = auto()


@dataclass(frozen=True, slots=True)
class StorageAway:
    """The storage has not answered for the pause limit: leave the ranges to programs that may reach it."""


@dataclass(frozen=True, slots=True)
class StorageAnswers:
    """A probe succeeded: consume the ranges, and try one write."""


BreakerEvent: TypeAlias = StorageAway | StorageAnswers


class CircuitBreaker:
    """Decides whether a write may start. Belongs to one event loop.

    Closed at first. A write in trouble opens it for all writes of the process. Then the storage is probed, with backoff
    and jitter. After a successful probe one write decides whether it closes: a database that answers may still refuse
    every write, when its disk is full for example.

    The ranges are given up only while the storage does not answer at all. A storage that answers and refuses writes
    refuses those of other programs too: handing its packages round would only count redeliveries until they look like
    poison.

    Args:
        threads: probe the storage.
        pause_limit_s: the time without an answer after which `StorageAway` is emitted, once an outage.
        emit: called with events, on the event loop.
    """

    def __init__(self, threads: StorageThreads, pause_limit_s: float, emit: Callable[[BreakerEvent], None]) -> None:
        self._threads = threads
        self._pause_limit_s = pause_limit_s
        self._emit = emit
        self._state = _State.CLOSED
        self._trouble: RetryableStorageError | None = None
        self._opened = asyncio.Event()
        # Set when a write has decided whether a half-open breaker closes.
        self._decided = asyncio.Event()
        self._away: asyncio.TimerHandle | None = None
        self._outage = Outage(logger, action="storage.write")

    @property
    def problem(self) -> str | None:
        """Why writes do not start freely; None if they do."""
        return None if self._trouble is None else str(self._trouble)

    @property
    def awaits_write(self) -> bool:
        """Whether one write decides whether others may start."""
        return self._state is _State.HALF_OPEN

    def allows(self, running_count: int) -> bool:
        """Returns whether another write may start beside those that run."""
        return self._state is _State.CLOSED or (self._state is _State.HALF_OPEN and running_count == 0)

    def note(self, trouble: RetryableStorageError | None) -> None:
        """Notes how a write ended: None or a failure of one operation closes a half-open breaker, others open it."""
        if trouble is None or is_of_operation(trouble):
            # A write that ends while it is open may have begun before the trouble.
            if self._state is _State.HALF_OPEN:
                self._state, self._trouble = _State.CLOSED, None
                self._decided.set()
            return
        self._outage.failed("the storage is in trouble, packages wait", trouble)
        if self._state is _State.CLOSED:
            self._opened.set()
        self._state, self._trouble = _State.OPEN, trouble
        self._decided.set()

    async def run(self) -> None:
        """Probes whenever it is opened until it is closed again. Runs until it is cancelled."""
        while True:
            await self._opened.wait()
            retrying = AsyncRetrying(
                retry=retry_if_exception_type(RetryableStorageError),
                wait=wait_random_exponential(multiplier=_BACKOFF_FIRST_S, max=_BACKOFF_MAX_S),
            )
            await retrying(self._try_to_close)
            self._outage.ended("the storage is written to again")

    async def _try_to_close(self) -> None:
        self._opened.clear()
        if self._away is None:
            self._away = asyncio.get_running_loop().call_later(self._pause_limit_s, self._on_pause_limit)
        try:
            await self._threads.probe()
        except RetryableStorageError as error:
            self._outage.failed("the storage is in trouble, packages wait", error)
            raise
        # The limit counts no longer: the storage answered, and a write to try may not come for a long time.
        self._away.cancel()
        self._away = None
        self._state = _State.HALF_OPEN
        self._decided.clear()
        self._emit(StorageAnswers())
        await self._decided.wait()
        if self._trouble is not None:
            raise self._trouble

    def _on_pause_limit(self) -> None:
        logger.warning(
            "the storage does not answer for %.0f s: the ranges are given up",
            self._pause_limit_s,
            extra={"action": "ranges.release", "after_s": self._pause_limit_s},
        )
        self._emit(StorageAway())
