"""The end of a call, and what is given back then."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from typing import Final

_TRIM_DELAY_S: Final = 5.0


def at_end_of_call(callback: Callable[[], None]) -> None:
    """Has `callback` called once the RPC that the current task serves has ended, however it does.

    gRPC's own `ServicerContext.add_done_callback` binds the context to itself, and with it what its core has received
    for the call and nobody read: some megabytes that wait for a full garbage collection, which halts the event loop for
    some hundred milliseconds when there are many packages.
    """
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("not called by a task")
    task.add_done_callback(lambda _: callback())


class FreedMemory:
    """Has glibc give memory back to the system some seconds after calls have ended. Belongs to one event loop.

    By itself glibc keeps what lies below a block that is still used: after a burst, hundreds of megabytes.
    """

    def __init__(self) -> None:
        self._due = False
        libc = ctypes.CDLL(None)
        self._trim: Callable[[int], int] | None = getattr(libc, "malloc_trim", None)

    def note_end(self) -> None:
        """Tells that a call has ended."""
        if not self._due and self._trim is not None:
            self._due = True
            asyncio.get_running_loop().call_later(_TRIM_DELAY_S, self._give_back)

    def _give_back(self) -> None:
        self._due = False
        if self._trim is not None:
            # On a thread: the call takes milliseconds, and other threads run on meanwhile.
            asyncio.get_running_loop().run_in_executor(None, self._trim, 0)
