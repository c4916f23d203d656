"""Bounds on what is not acked, by count and by bytes, for each call and for all together."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass


@dataclass(slots=True)
class Load:
    """An amount of entries and of bytes."""

    entry_count: int = 0
    size_bytes: int = 0

    def add(self, other: Load) -> None:
        """Adds another amount."""
        self.entry_count += other.entry_count
        self.size_bytes += other.size_bytes

    def subtract(self, other: Load) -> None:
        """Takes another amount away."""
        self.entry_count -= other.entry_count
        self.size_bytes -= other.size_bytes

    def admits(self, other: Load, bound: Load) -> bool:
        """Returns whether another amount fits within `bound`; into an empty load everything does."""
        if self.entry_count == 0:
            return True
        return (
            self.entry_count + other.entry_count <= bound.entry_count
            and self.size_bytes + other.size_bytes <= bound.size_bytes
        )


@dataclass(slots=True, eq=False)
class _Waiter:
    share: CallShare
    load: Load
    admitted: asyncio.Future[None]


class CrowdedError(Exception):
    """As much waits to be admitted as may."""


class FlowControl:
    """Admits messages in the order in which they ask, as far as the bounds let them. Belongs to one event loop.

    A message larger than a bound is admitted when nothing else is in hand, so that it is slow but not stuck. A call at
    its own bound does not hold the others up.

    Args:
        per_call: the bound of one call.
        total: the bound of all calls together.
        max_waiting_bytes: how much may wait to be admitted, since that takes memory too; None for no bound.
    """

    def __init__(self, per_call: Load, total: Load, max_waiting_bytes: int | None = None) -> None:
        self._per_call = per_call
        self._total = total
        self._max_waiting_bytes = max_waiting_bytes
        self._in_hand = Load()
        self._waiters: deque[_Waiter] = deque()
        self._waiting_bytes = 0

    @property
    def in_hand(self) -> Load:
        """What all calls together have in hand."""
        return self._in_hand

    def share(self) -> CallShare:
        """Returns the share of a new call."""
        return CallShare(self)

    async def admit(self, share: CallShare, load: Load) -> None:
        """Waits until `load` fits, and counts it. Raises `CrowdedError` where too much waits."""
        if self._max_waiting_bytes is not None and self._waiting_bytes + load.size_bytes > self._max_waiting_bytes:
            raise CrowdedError
        waiter = _Waiter(share, load, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._waiting_bytes += load.size_bytes
        self._admit_waiters()
        try:
            await waiter.admitted
        except asyncio.CancelledError:
            if waiter.admitted.cancelled():
                # It may be the one that the others wait behind.
                self._admit_waiters()
            else:
                share.release(load)
            raise
        finally:
            self._waiting_bytes -= load.size_bytes

    def release(self, share: CallShare, load: Load) -> None:
        """Gives back what is acked or dropped."""
        share.in_hand.subtract(load)
        self._in_hand.subtract(load)
        self._admit_waiters()

    def _admit_waiters(self) -> None:
        held_up: deque[_Waiter] = deque()
        while self._waiters:
            waiter = self._waiters.popleft()
            if waiter.admitted.cancelled():
                continue
            if not waiter.share.in_hand.admits(waiter.load, self._per_call):
                held_up.append(waiter)
            elif not self._in_hand.admits(waiter.load, self._total):
                held_up.append(waiter)
                break
            else:
                waiter.share.in_hand.add(waiter.load)
                self._in_hand.add(waiter.load)
                waiter.admitted.set_result(None)
        self._waiters.extendleft(reversed(held_up))


class CallShare:
    """What one call has in hand.

    Attributes:
        in_hand: the entries and bytes of the call that were admitted and neither acked nor dropped.
        waiting: whether the call waits to be admitted.
    """

    def __init__(self, flow_control: FlowControl) -> None:
        self.in_hand = Load()
        self.waiting = False
        self._flow_control = flow_control
        self._closed = False

    async def admit(self, load: Load) -> None:
        """Waits until `load` fits, and counts it. One caller at a time."""
        self.waiting = True
        try:
            await self._flow_control.admit(self, load)
        finally:
            self.waiting = False

    def release(self, load: Load) -> None:
        """Gives back what is acked. Does nothing once the share is closed: all of it was given back then."""
        if not self._closed:
            self._flow_control.release(self, load)

    def close(self) -> None:
        """Gives back whatever is in hand. May be called again."""
        self.release(Load(self.in_hand.entry_count, self.in_hand.size_bytes))
        self._closed = True
