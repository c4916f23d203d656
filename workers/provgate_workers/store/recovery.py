"""What a process does while its storage cannot be written to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from provgate_runtime.outage import Outage
from provgate_storage.errors import RetryableStorageError
from provgate_workers.store.batch_scheduler import BatchWriter
from provgate_workers.store.circuit_breaker import StorageGate

logger = logging.getLogger(__name__)

_BACKOFF_FIRST_S: Final = 0.2
_BACKOFF_MAX_S: Final = 5.0


class StorageRecovery:
    """Opens the gate again after trouble: probes with backoff and jitter, then lets one write be tried.

    Belongs to one event loop. Where nothing waits to be written the probe is enough: a write that comes later and
    fails closes the gate again.

    The ranges are given up while the storage does not answer at all, since others may reach it better. A storage that
    answers and refuses writes, a full one say, refuses those of others too: to hand its packages round would only have
    their redeliveries counted until they look like poison.

    Args:
        gate: the gate.
        writer: probes the storage, and starts writes when the gate lets it.
        pause_limit_s: after so many seconds without an answer the ranges are given up, until a probe succeeds.
        give_up: gives the ranges up, for other programs that may reach the storage.
        take_again: takes them again.
    """

    def __init__(
        self,
        gate: StorageGate,
        writer: BatchWriter,
        pause_limit_s: float,
        give_up: Callable[[], None],
        take_again: Callable[[], None],
    ) -> None:
        self._gate = gate
        self._writer = writer
        self._pause_limit_s = pause_limit_s
        self._give_up = give_up
        self._take_again = take_again
        self._given_up = False
        self._timer: asyncio.TimerHandle | None = None
        self._trouble = asyncio.Event()
        self._outage = Outage(logger, action="storage.write")

    def note_trouble(self, trouble: RetryableStorageError) -> None:
        """Tells that a write is in trouble."""
        self._outage.failed("the storage is in trouble, packages wait", trouble)
        if self._gate.note_trouble(trouble):
            self._trouble.set()

    async def run(self) -> None:
        """Opens the gate whenever it was closed, until it is cancelled."""
        while True:
            await self._trouble.wait()
            self._trouble.clear()
            retrying = AsyncRetrying(
                retry=retry_if_exception_type(RetryableStorageError),
                wait=wait_random_exponential(multiplier=_BACKOFF_FIRST_S, max=_BACKOFF_MAX_S),
            )
            await retrying(self._try_once)
            self._outage.ended("the storage is written to again")

    async def _try_once(self) -> None:
        self._start_timer()
        await self._probe()
        self._stop_timer()
        if self._given_up:
            self._given_up = False
            self._take_again()
        verdict = self._gate.begin_trial()
        self._writer.go_on()
        if self._writer.is_idle:
            self._gate.note_success()
        await verdict

    async def _probe(self) -> None:
        try:
            await self._writer.probe()
        except RetryableStorageError as error:
            self._outage.failed("the storage is in trouble, packages wait", error)
            raise

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._pause_limit_s, self._on_limit)

    def _stop_timer(self) -> None:
        # Not while a write is tried: none may come for a long time, and the storage has answered.
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_limit(self) -> None:
        logger.warning(
            "the storage does not answer for %.0f s: the ranges are given up",
            self._pause_limit_s,
            extra={"action": "ranges.release", "after_s": self._pause_limit_s},
        )
        self._given_up = True
        self._give_up()
