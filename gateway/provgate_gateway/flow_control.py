"""Bounds on what is not acked, by count and by bytes: of each call, of the calls of one caller, of all together."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from provgate_gateway.entry_rate import EntryRate

# Of what may wait, each caller with a quota may take one in so many.
_QUOTA_SHARE: Final = 4

# How soon a write may find room where a quota has none.
_RETRY_DELAY_S: Final = 1.0


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
class Quota:
    """What the calls of one caller share.

    Attributes:
        bound: what they may have in hand together.
        rate: how fast entries may come in; None for no bound.
        turn_max_s: how long the first message of a call may have to wait for its turn by the rate.
        in_hand: what they have in hand.
        waiting_bytes: how much of theirs waits to be admitted.
    """

    bound: Load
    rate: EntryRate | None = None
    turn_max_s: float = 0.0
    in_hand: Load = field(default_factory=Load)
    waiting_bytes: int = 0

    def check_begin(self, load: Load) -> None:
        """Raises `QuotaError` where a call whose first message is of `load` may not begin."""
        wait_s = 0.0 if self.rate is None else self.rate.wait_s()
        if wait_s > self.turn_max_s:
            raise QuotaError("this caller sends more entries a second than it may", wait_s)
        if not self.in_hand.admits(load, self.bound):
            raise QuotaError("other writes of this caller have as many unacked entries as it may have", _RETRY_DELAY_S)


@dataclass(slots=True, eq=False)
class _Waiter:
    share: CallShare
    load: Load
    admitted: asyncio.Future[None]


class CrowdedError(Exception):
    """As much waits to be admitted as may."""


class QuotaError(Exception):
    """A write may not begin beside the others of its caller.

    Attributes:
        retry_delay_s: after how long it may.
    """

    def __init__(self, message: str, retry_delay_s: float) -> None:
        super().__init__(message)
        self.retry_delay_s = retry_delay_s


class FlowControl:
    """Admits messages in the order in which they ask, as far as the bounds let them. Belongs to one event loop.

    A message larger than a bound is admitted when nothing else is in hand, so that it is slow but not stuck. A call at
    its own bound, or at that of its caller, does not hold the others up.

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

    @property
    def waiting_bytes(self) -> int:
        """How much waits to be admitted."""
        return self._waiting_bytes

    def share(self, quota: Quota | None = None) -> CallShare:
        """Returns the share of a new call. `quota` is its caller's, None for no bound."""
        return CallShare(self, quota)

    async def admit(self, share: CallShare, load: Load) -> None:
        """Waits until `load` has its turn and fits, and counts it.

        Raises:
            CrowdedError: too much waits.
            QuotaError: a good part of what may wait is of the same caller.
        """
        self._check_crowd(share.quota, load)
        self._waiting_bytes += load.size_bytes
        if share.quota is not None:
            share.quota.waiting_bytes += load.size_bytes
        try:
            await share.turn(load)
            await self._room(share, load)
        finally:
            self._waiting_bytes -= load.size_bytes
            if share.quota is not None:
                share.quota.waiting_bytes -= load.size_bytes

    def _check_crowd(self, quota: Quota | None, load: Load) -> None:
        if self._max_waiting_bytes is None:
            return
        if self._waiting_bytes + load.size_bytes > self._max_waiting_bytes:
            raise CrowdedError
        # Who is slowed down by limits of their own must not fill what those wait in who have none.
        if quota is not None and quota.waiting_bytes + load.size_bytes > self._max_waiting_bytes // _QUOTA_SHARE:
            raise QuotaError("other writes of this caller wait with as much as it may", _RETRY_DELAY_S)

    async def _room(self, share: CallShare, load: Load) -> None:
        waiter = _Waiter(share, load, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
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

    def release(self, share: CallShare, load: Load) -> None:
        """Gives back what is acked or dropped."""
        share.in_hand.subtract(load)
        if share.quota is not None:
            share.quota.in_hand.subtract(load)
        self._in_hand.subtract(load)
        self._admit_waiters()

    def _admit_waiters(self) -> None:
        held_up: deque[_Waiter] = deque()
        used_up: list[Quota] = []
        while self._waiters:
            waiter = self._waiters.popleft()
            if waiter.admitted.cancelled():
                continue
            quota = waiter.share.quota
            if not waiter.share.in_hand.admits(waiter.load, self._per_call):
                held_up.append(waiter)
            elif quota is not None and (quota in used_up or not quota.in_hand.admits(waiter.load, quota.bound)):
                # Those of the same caller wait behind it: smaller ones would take its room again and again.
                used_up.append(quota)
                held_up.append(waiter)
            elif not self._in_hand.admits(waiter.load, self._total):
                held_up.append(waiter)
                break
            else:
                waiter.share.in_hand.add(waiter.load)
                if quota is not None:
                    quota.in_hand.add(waiter.load)
                self._in_hand.add(waiter.load)
                waiter.admitted.set_result(None)
        self._waiters.extendleft(reversed(held_up))


class CallShare:
    """What one call has in hand.

    Attributes:
        in_hand: the entries and bytes of the call that were admitted and neither acked nor dropped.
        waiting: whether the call waits to be admitted.
        turn_at: when the last message that had to wait has, or had, its turn by its caller's rate, on the monotonic
            clock; 0 where there is none.
        quota: what the call shares with others of its caller; None for nothing.
    """

    def __init__(self, flow_control: FlowControl, quota: Quota | None) -> None:
        self.in_hand = Load()
        self.waiting = False
        self.turn_at = 0.0
        self.quota = quota
        self._flow_control = flow_control
        self._begun = False
        self._closed = False

    async def admit(self, load: Load) -> None:
        """Waits until `load` fits, and counts it. One caller at a time.

        Raises:
            CrowdedError: too much waits.
            QuotaError: it is the first of the call, and does not fit beside the others of its caller.
        """
        if self.quota is not None and not self._begun:
            self.quota.check_begin(load)
        self._begun = True
        self.waiting = True
        try:
            await self._flow_control.admit(self, load)
        finally:
            self.waiting = False

    async def turn(self, load: Load) -> None:
        """Waits until the rate of the call's caller lets `load` in."""
        if self.quota is None or self.quota.rate is None:
            return
        wait_s = self.quota.rate.take_turn(load.entry_count)
        if wait_s == 0:
            return
        self.turn_at = time.monotonic() + wait_s
        try:
            await asyncio.sleep(wait_s)
        except asyncio.CancelledError:
            self.quota.rate.give_back(load.entry_count)
            self.turn_at = 0.0
            raise

    def release(self, load: Load) -> None:
        """Gives back what is acked. Does nothing once the share is closed: all of it was given back then."""
        if not self._closed:
            self._flow_control.release(self, load)

    def close(self) -> None:
        """Gives back whatever is in hand. May be called again."""
        self.release(Load(self.in_hand.entry_count, self.in_hand.size_bytes))
        self._closed = True
