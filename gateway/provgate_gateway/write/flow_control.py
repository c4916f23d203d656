"""Bounds on what writes hold, by count and by bytes: of each call, of the calls of one caller, of all together.

One budget of bytes covers a message from before it is read until its last package is acked. A call reserves what a
message of the largest size becomes before it asks gRPC for one; what its own size becomes replaces that when it has
come, its packages' size when it is cut.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final


class EntryRate:
    """A bucket that fills with so many entries a second, holds those of one second, and may go into debt.

    A message has its turn when there is no debt, and then makes as much of it as it is large: so one that is larger
    than the bucket is taken too, and who comes next waits for longer. Turns are given in the order in which they are
    taken. Belongs to one event loop.

    Args:
        per_second: how many entries.
        now: tells the time in seconds.
    """

    def __init__(self, per_second: int, now: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._now = now
        self._level = float(per_second)
        self._filled_at = now()

    def wait_s(self) -> float:
        """Returns how long a message that comes now would wait for its turn."""
        self._fill()
        return max(0.0, -self._level / self._per_second)

    def take_turn(self, entry_count: int) -> float:
        """Counts a message, and returns how long it waits for its turn."""
        wait_s = self.wait_s()
        self._level -= entry_count
        return wait_s

    def give_back(self, entry_count: int) -> None:
        """Takes a message out of the count that did not wait for its turn."""
        self._level += entry_count

    def _fill(self) -> None:
        now = self._now()
        self._level = min(self._per_second, self._level + (now - self._filled_at) * self._per_second)
        self._filled_at = now


MESSAGE_MAX_BYTES: Final = 4 * 1024 * 1024
"""The largest request message."""

# What the packages of a message may take beside what is in it, one of each range.
_PACKAGES_BYTES: Final = 16 * 1024

# What messages that are read or wait may hold of a caller with a quota: a fourth of all.
_QUOTA_SHARE: Final = 4

# A caller may have one more message read while those of its calls hold less than this many times what is free, as in
# `call_limits`: calls that send nothing do not keep those of others from being read.
_FREE_SHARE: Final = 3

# How long the next message of a call may take to come while other calls wait to be read.
_NEXT_MESSAGE_S: Final = 10.0

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
        waiting_bytes: what their messages hold that are read, or wait to be admitted.
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
class _Reader:
    """A call that waits to be read."""

    share: CallShare
    size_bytes: int
    reserved: asyncio.Future[None]


@dataclass(slots=True, eq=False)
class _Waiter:
    """A message that waits to be admitted."""

    share: CallShare
    load: Load
    admitted: asyncio.Future[None]


class CrowdedError(Exception):
    """The bytes of all writes leave no place for this one."""


class QuotaError(Exception):
    """A write may not begin beside the others of its caller.

    Attributes:
        retry_delay_s: after how long it may.
    """

    def __init__(self, message: str, retry_delay_s: float) -> None:
        super().__init__(message)
        self.retry_delay_s = retry_delay_s


class FlowControl:
    """Lets calls be read, and admits their messages, in the order in which they ask, as far as the bounds let them.

    Of several callers the one that holds least is read next.

    A message larger than a bound is admitted when nothing else is in hand, so that it is slow but not stuck. A call at
    its own bound, or at that of its caller, does not hold the others up. Belongs to one event loop.

    Args:
        per_call: the bound of what one call has in hand.
        total: the bound of all calls together; its bytes include the messages that are not admitted.
    """

    def __init__(self, per_call: Load, total: Load) -> None:
        self._per_call = per_call
        self._total = total
        self._in_hand = Load()
        self._waiters: deque[_Waiter] = deque()
        self._waiting_bytes = 0
        # Those of each caller in the order in which they ask; of callers that hold as little, the first is next.
        self._readers: dict[str, deque[_Reader]] = {}
        self._waiting_bytes_by_caller: dict[str, int] = {}
        # The limits of the calls whose next message has not come, when each was asked for, and whose it is.
        self._expected: dict[asyncio.Timeout, tuple[float, str]] = {}
        self._limits_expected = False

    @property
    def in_hand(self) -> Load:
        """What all calls together have in hand."""
        return self._in_hand

    @property
    def waiting_bytes(self) -> int:
        """What messages hold that are not admitted: those that are read, taken apart, or wait."""
        return self._waiting_bytes

    def share(self, caller: str = "", quota: Quota | None = None) -> CallShare:
        """Returns the share of a new call. `quota` is its caller's, None for no bound."""
        return CallShare(self, caller, quota)

    async def reserve(self, share: CallShare, size_bytes: int) -> None:
        """Waits until a message that takes `size_bytes` fits, and counts it as waiting."""
        reader = _Reader(share, size_bytes, asyncio.get_running_loop().create_future())
        self._readers.setdefault(share.caller, deque()).append(reader)
        self._reserve_for_readers()
        try:
            await reader.reserved
        except asyncio.CancelledError:
            if reader.reserved.cancelled():
                self._stop_waiting(reader)
                self._reserve_for_readers()
            else:
                self.hold(share, 0)
            raise

    async def expect(self, share: CallShare, read: Callable[[], Awaitable[object]]) -> object:
        """Returns the next message of a call.

        Raises:
            TimeoutError: it does not come while calls wait whose callers hold no more than this call's.
        """
        async with asyncio.timeout(None) as limit:
            self._expected[limit] = asyncio.get_running_loop().time(), share.caller
            try:
                self._limit_expected()
                return await read()
            finally:
                del self._expected[limit]

    def hold(self, share: CallShare, size_bytes: int) -> None:
        """Replaces what the call's message holds while it is not admitted.

        Raises:
            CrowdedError: that is more than before, and does not fit.
        """
        more_bytes = size_bytes - share.waiting_bytes
        if more_bytes > 0 and self._used_bytes > share.waiting_bytes and not self._fits(more_bytes):
            raise CrowdedError
        share.waiting_bytes += more_bytes
        self._waiting_bytes += more_bytes
        held_bytes = self._waiting_bytes_by_caller.pop(share.caller, 0) + more_bytes
        if held_bytes:
            self._waiting_bytes_by_caller[share.caller] = held_bytes
        if share.quota is not None:
            share.quota.waiting_bytes += more_bytes
        if more_bytes < 0:
            self._reserve_for_readers()

    @property
    def _used_bytes(self) -> int:
        return self._in_hand.size_bytes + self._waiting_bytes

    def _fits(self, size_bytes: int) -> bool:
        return self._used_bytes == 0 or self._used_bytes + size_bytes <= self._total.size_bytes

    def _reserve_for_readers(self) -> None:
        over_share: set[str] = set()
        while waiting := [caller for caller in self._readers if caller not in over_share]:
            caller = min(waiting, key=self._held_bytes)
            reader = self._readers[caller][0]
            if not reader.reserved.cancelled():
                if self._is_over_share(reader):
                    over_share.add(caller)
                    continue
                if not self._fits(reader.size_bytes):
                    break
                self.hold(reader.share, reader.size_bytes)
                reader.reserved.set_result(None)
            self._stop_waiting(reader)
        self._limit_expected()

    def _stop_waiting(self, reader: _Reader) -> None:
        readers = self._readers.pop(reader.share.caller, deque())
        if reader in readers:
            readers.remove(reader)
        if readers:
            # At the end: the others that hold as little come before it.
            self._readers[reader.share.caller] = readers

    def _is_over_share(self, reader: _Reader) -> bool:
        quota = reader.share.quota
        most_bytes = self._total.size_bytes // _QUOTA_SHARE
        if quota is not None and quota.waiting_bytes and quota.waiting_bytes + reader.size_bytes > most_bytes:
            # Who is slowed down by limits of their own must not hold all that those need who have none.
            return True
        held_bytes = self._held_bytes(reader.share.caller)
        free_bytes = self._total.size_bytes - self._used_bytes
        return held_bytes > 0 and held_bytes + reader.size_bytes > _FREE_SHARE * free_bytes

    def _held_bytes(self, caller: str) -> int:
        return self._waiting_bytes_by_caller.get(caller, 0)

    def _limit_expected(self) -> None:
        """Has calls end that send nothing while calls wait whose callers hold no more than theirs."""
        if not self._readers and not self._limits_expected:
            return
        self._limits_expected = bool(self._readers)
        least_bytes = min(map(self._held_bytes, self._readers), default=sys.maxsize)
        for limit, (asked_at, caller) in self._expected.items():
            ends_at = asked_at + _NEXT_MESSAGE_S if self._held_bytes(caller) >= least_bytes else None
            if limit.when() != ends_at and not limit.expired():
                limit.reschedule(ends_at)

    async def admit(self, share: CallShare, load: Load) -> None:
        """Waits until `load` has its turn and is within the bounds, and counts it as in hand instead of as waiting.

        Raises:
            CrowdedError: it is more than was reserved, and there are no bytes for it.
        """
        self.hold(share, load.size_bytes)
        await share.turn(load)
        await self._room(share, load)

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
        self._reserve_for_readers()

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
                self.hold(waiter.share, 0)
                waiter.admitted.set_result(None)
        self._waiters.extendleft(reversed(held_up))


class CallShare:
    """What one call has in hand.

    Attributes:
        in_hand: the entries and bytes of the call that were admitted and neither acked nor dropped.
        waiting_bytes: what its message holds that is read, or waits to be admitted.
        waiting: whether the call waits to be read or admitted.
        caller: who makes the call.
        turn_at: when the last message that had to wait has, or had, its turn by its caller's rate, on the monotonic
            clock; 0 where there is none.
        quota: what the call shares with others of its caller; None for nothing.
    """

    def __init__(self, flow_control: FlowControl, caller: str, quota: Quota | None) -> None:
        self.caller = caller
        self.in_hand = Load()
        self.waiting_bytes = 0
        self.waiting = False
        self.turn_at = 0.0
        self.quota = quota
        self._flow_control = flow_control
        self._begun = False
        self._closed = False

    async def next_message(self, read: Callable[[], Awaitable[object]], growth: float) -> bytes | None:
        """Waits until there is memory for the next message of the call, and reads it. One caller at a time.

        Args:
            read: reads it; returns `grpc.aio.EOF` where none follows.
            growth: by how much a message's packages are larger than it is, at most, beside what each takes anyway.

        Returns:
            The message, encoded; None where none follows.

        Raises:
            CrowdedError: other calls wait to be read, and the client sends nothing.
        """
        self.waiting = True
        try:
            await self._flow_control.reserve(self, _packages_bytes(MESSAGE_MAX_BYTES, growth))
        finally:
            self.waiting = False
        body: bytes | None = None
        try:
            received = await self._flow_control.expect(self, read)
            body = received if isinstance(received, bytes) else None
        except TimeoutError:
            raise CrowdedError from None
        finally:
            self._flow_control.hold(self, 0 if body is None else _packages_bytes(len(body), growth))
        return body

    async def admit(self, load: Load) -> None:
        """Waits until `load` is within the bounds, and counts it. One caller at a time.

        Raises:
            CrowdedError: it is larger than what `next_message` reserved, and does not fit.
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
            self._flow_control.hold(self, 0)

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
        """Gives back whatever is in hand or waits. May be called again."""
        self._flow_control.hold(self, 0)
        self.release(Load(self.in_hand.entry_count, self.in_hand.size_bytes))
        self._closed = True


def _packages_bytes(message_bytes: int, growth: float) -> int:
    """Returns what the packages of a message take, at most."""
    return int(message_bytes * growth) + _PACKAGES_BYTES
