"""What calls leave behind when they have ended."""

from __future__ import annotations

import asyncio
import gc
from typing import Final

_DELAY_S: Final = 0.5


class CallGarbage:
    """Has the garbage collector run soon after calls have ended. Belongs to one event loop.

    gRPC for Python binds a call and the callbacks of its end in a cycle, and with it what its core has received for the
    call and nobody read: up to some megabytes. The collector counts objects, and would come after a thousand of them.
    """

    def __init__(self) -> None:
        self._due = False

    def note_end(self) -> None:
        """Tells that a call has ended."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(_DELAY_S, self._collect)

    def _collect(self) -> None:
        self._due = False
        # What was imported is frozen and not looked at: this takes a millisecond or two.
        gc.collect()
