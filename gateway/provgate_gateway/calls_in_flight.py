"""The calls that run, so that the end of the gateway waits for them and for nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from provgate_gateway.call_end import FreedMemory, at_end_of_call
from provgate_gateway.waiting import within

# How long calls that are cut short have to send their status.
LAST_WORDS_S: Final = 0.5


class CallsInFlight:
    """The calls of the service that run. Belongs to one event loop.

    Streams of other services, such as a watch of the health service, last as long as their clients like.
    """

    def __init__(self) -> None:
        self._cuts: dict[object, Callable[[], None]] = {}
        self._none_left = asyncio.Event()
        self._none_left.set()
        self._freed_memory = FreedMemory()

    def add(self, cut_short: Callable[[], None] = lambda: None) -> None:
        """Counts the call that the current task serves until its status is sent.

        Args:
            cut_short: has it end soon, with a status that says why.
        """
        call = object()
        self._cuts[call] = cut_short
        self._none_left.clear()
        at_end_of_call(lambda: self._remove(call))

    async def end(self, grace_s: float) -> None:
        """Returns once no call is left; those that still run after the grace period are cut short."""
        if await within(self._none_left.wait(), grace_s):
            return
        for cut_short in list(self._cuts.values()):
            cut_short()
        await within(self._none_left.wait(), LAST_WORDS_S)

    def _remove(self, call: object) -> None:
        del self._cuts[call]
        self._freed_memory.note_end()
        if not self._cuts:
            self._none_left.set()
