"""Conditions that must hold for a program to be alive or ready, and the one of its event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

LATE_AFTER_S: Final = 15.0
"""An event loop that is blocked longer also misses heartbeats to the broker."""

_BEAT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that must hold.

    Attributes:
        name: the name, for programs, for example "broker".
        problem: why it does not hold, for people and without a secret; None while it holds.
    """

    name: str
    problem: str | None = None

    @property
    def holds(self) -> bool:
        """Whether it holds."""
        return self.problem is None


Conditions: TypeAlias = Callable[[], Sequence[Condition]]
"""Returns the conditions as they are now. The watch port calls it on its own threads."""


class Heartbeat:
    """Records every second that its event loop runs. `conditions` is thread-safe.

    Args:
        late_after_s: how long the loop may be blocked.
    """

    def __init__(self, late_after_s: float = LATE_AFTER_S) -> None:
        self._late_after_s = late_after_s
        self._beaten_at = time.monotonic()

    async def run(self) -> None:
        """Records the loop's time until it is cancelled."""
        while True:
            self._beaten_at = time.monotonic()
            await asyncio.sleep(min(_BEAT_S, self._late_after_s / 4))

    def conditions(self) -> list[Condition]:
        """Returns the one condition `event_loop`."""
        blocked_s = time.monotonic() - self._beaten_at
        late = blocked_s > self._late_after_s
        return [Condition("event_loop", f"it has been blocked for {blocked_s:.0f} s" if late else None)]
