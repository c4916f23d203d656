"""Whether an event loop turns."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from provgate_telemetry.conditions import Condition

INTERVAL_S: Final = 1.0
LATE_AFTER_S: Final = 15.0
"""A loop that has not turned for so long is in trouble: heartbeats to the broker are being missed too."""


class Heartbeat:
    """Notes each second that its event loop turns. `conditions` may be called on any thread.

    Args:
        late_after_s: how long the loop may be silent.
    """

    def __init__(self, late_after_s: float = LATE_AFTER_S) -> None:
        self._late_after_s = late_after_s
        self._beaten_at = time.monotonic()

    async def run(self) -> None:
        """Beats until it is cancelled."""
        while True:
            self._beaten_at = time.monotonic()
            await asyncio.sleep(min(INTERVAL_S, self._late_after_s / 4))

    def conditions(self) -> list[Condition]:
        """Returns the one condition `event_loop`."""
        silent_s = time.monotonic() - self._beaten_at
        late = silent_s > self._late_after_s
        return [Condition("event_loop", f"it has not turned for {silent_s:.0f} s" if late else None)]
