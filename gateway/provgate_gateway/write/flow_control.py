"""Flow control: bounds, by entries and bytes, of what one call, one caller and all calls have unacked.

A message is read when the memory budget has bytes for it (`memory_budget`). Its packages are admitted in the order in
which calls ask, as far as three bounds allow: of the call, of its caller (the quota), and the total. A message that is
larger than a bound is admitted when nothing else is unacked, so that it is slow but not stuck. A call at its own bound,
or at that of its caller, does not hold up calls of others. A quota may also have an entry rate.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from provgate_gateway.write.memory_budget import MemoryBudget, MessageMemory

# How soon a write may fit into a quota that is used up.
_RETRY_DELAY_S: Final = 1.0


@dataclass(slots=True)
class Load:
    """An amount of entries and bytes."""

    entry_count: int = 0
    size_bytes: int = 0

    def add(self, other: Load) -> None:
        """Adds another amount."""
        self.entry_count += other.entry_count
        self.size_bytes += other.size_bytes

    def subtract(self, other: Load) -> None:
        """Subtracts another amount."""
        self.entry_count -= other.entry_count
        self.size_bytes -= other.size_bytes

    def admits(self, other: Load, bound: Load) -> bool:
        """Returns whether another amount fits within `bound`; beside an empty load everything does."""
        if self.entry_count == 0:
            return True
        return (
            self.entry_count + other.entry_count <= bound.entry_count
            and self.size_bytes + other.size_bytes <= bound.size_bytes
        )


class EntryRate:
    """A token bucket of entries: it holds those of one second, and may go into debt.

    A message passes when there is no debt, and then adds its entries to the debt. So a message that is larger than the
    bucket passes too, and the next one waits longer. Messages pass in the order in which they are added. Times are
    seconds on the clock of the caller.

    Args:
        per_second: the rate at which the bucket fills.
    """

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._level = float(per_second)
        self._filled_at = 0.0

    def wait_s(self, now: float) -> float:
        """Returns how long a message that comes now would wait."""
        self._level = min(self._per_second, self._level + (now - self._filled_at) * self._per_second)
        self._filled_at = now
        return max(0.0, -self._level / self._per_second)

    def add(self, entry_count: int, now: float) -> float:
        """Counts a message, and returns how long it has to wait."""
        wait_s = self.wait_s(now)
        self._level -= entry_count
        return wait_s

    def give_back(self, entry_count: int) -> None:
        """Takes a message out of the count that gave up waiting."""
        self._level += entry_count


class QuotaError(Exception):
    """A write may not begin beside the other writes of its caller.

    Attributes:
        retry_delay_s: after which time it may.
    """

    def __init__(self, message: str, retry_delay_s: float) -> None:
        super().__init__(message)
        self.retry_delay_s = retry_delay_s


@dataclass(slots=True, eq=False)
class Quota:
    """What the writes of one caller share.

    Attributes:
        bound: what they may have unacked together.
        rate: how fast entries may come in; None for no bound.
        rate_wait_max_s: how long the first message of a call may have to wait for the rate.
        unacked: what they have unacked.
    """

    bound: Load
    rate: EntryRate | None = None
    rate_wait_max_s: float = 0.0
    unacked: Load = field(default_factory=Load)

    def check_first_message(self, load: Load) -> None:
        """Raises `QuotaError` if a call with a first message of `load` may not begin."""
        wait_s = 0.0 if self.rate is None else self.rate.wait_s(asyncio.get_running_loop().time())
        if wait_s > self.rate_wait_max_s:
            raise QuotaError("this caller sends more entries a second than it may", wait_s)
        if not self.unacked.admits(load, self.bound):
            raise QuotaError("other writes of this caller have as many unacked entries as it may have", _RETRY_DELAY_S)


class FlowControl:
    """The bounds of all writes. Belongs to one event loop.

    Args:
        per_call: the bound of what one call has unacked.
        total: the bound of what all calls have unacked together. Its bytes are the memory budget, which includes the
            messages that are not admitted.
    """

    def __init__(self, per_call: Load, total: Load) -> None:
        self._per_call = per_call
        self._total = total
        self._unacked = Load()
        self._budget = MemoryBudget(total.size_bytes)
        self._admissions: deque[_Admission] = deque()

    @property
    def unacked(self) -> Load:
        """What all calls have unacked."""
        return self._unacked

    @property
    def waiting_bytes(self) -> int:
        """What messages hold that are not admitted: they are being read, are being split, or wait."""
        return self._budget.message_bytes

    def share(self, caller: str = "", quota: Quota | None = None) -> CallShare:
        """Returns the share of a new call. `quota` is its caller's, None for no bound."""
        return CallShare(self, MessageMemory(self._budget, caller, has_quota=quota is not None), quota)

    async def _admit(self, share: CallShare, load: Load) -> None:
        admission = _Admission(share, load, asyncio.get_running_loop().create_future())
        self._admissions.append(admission)
        self._admit_waiting()
        try:
            await admission.admitted
        except asyncio.CancelledError:
            if admission.admitted.cancelled():
                # It may be the one that the others wait behind.
                self._admit_waiting()
            else:
                share.release(load)
            raise

    def _release(self, share: CallShare, load: Load) -> None:
        share.unacked.subtract(load)
        if share.quota is not None:
            share.quota.unacked.subtract(load)
        self._unacked.subtract(load)
        self._budget.remove_packages(load.size_bytes)
        self._admit_waiting()
        self._budget.grant_reservations()

    def _admit_waiting(self) -> None:
        held_up: deque[_Admission] = deque()
        used_up: list[Quota] = []
        while self._admissions:
            admission = self._admissions.popleft()
            if admission.admitted.cancelled():
                continue
            share, load = admission.share, admission.load
            quota = share.quota
            if not share.unacked.admits(load, self._per_call):
                held_up.append(admission)
            elif quota is not None and (quota in used_up or not quota.unacked.admits(load, quota.bound)):
                # Later messages of the same caller wait behind it: smaller ones would overtake it again and again.
                used_up.append(quota)
                held_up.append(admission)
            elif not self._unacked.admits(load, self._total):
                held_up.append(admission)
                break
            else:
                share.unacked.add(load)
                if quota is not None:
                    quota.unacked.add(load)
                self._unacked.add(load)
                self._budget.add_packages(load.size_bytes)
                share.memory.resize(0)
                admission.admitted.set_result(None)
        self._admissions.extendleft(reversed(held_up))


class CallShare:
    """What one call has unacked, and the memory of its current message.

    Attributes:
        memory: of the message that is read or waits.
        unacked: what was admitted and neither acked nor dropped.
        quota: what the call shares with other calls of its caller; None for nothing.
        rate_passes_at: when the last message that had to wait for its caller's rate passes, or passed, on the loop's
            clock; 0 if none had to.
    """

    def __init__(self, flow_control: FlowControl, memory: MessageMemory, quota: Quota | None) -> None:
        self.memory = memory
        self.unacked = Load()
        self.quota = quota
        self.rate_passes_at = 0.0
        self._flow_control = flow_control
        self._is_admitting = False
        self._has_begun = False
        self._is_closed = False

    @property
    def waiting(self) -> bool:
        """Whether the call waits to be read or to be admitted."""
        return self.memory.waiting or self._is_admitting

    async def admit(self, load: Load) -> None:
        """Waits until `load` is within the bounds, and counts it as unacked. One at a time.

        Raises:
            MemoryBudgetError: it is larger than its message's memory, and does not fit.
            QuotaError: it is the first of the call, and does not fit beside the other calls of its caller.
        """
        if self.quota is not None and not self._has_begun:
            self.quota.check_first_message(load)
        self._has_begun = True
        self._is_admitting = True
        try:
            self.memory.resize(load.size_bytes)
            await self._wait_for_rate(load)
            await self._flow_control._admit(self, load)
        finally:
            self._is_admitting = False
            self.memory.resize(0)

    def release(self, load: Load) -> None:
        """Gives back what is acked. Does nothing after `close`, which gives everything back."""
        if not self._is_closed:
            self._flow_control._release(self, load)

    def close(self) -> None:
        """Gives back what is unacked and what the message holds. May be called again."""
        self.memory.resize(0)
        self.release(Load(self.unacked.entry_count, self.unacked.size_bytes))
        self._is_closed = True

    async def _wait_for_rate(self, load: Load) -> None:
        rate = None if self.quota is None else self.quota.rate
        if rate is None:
            return
        now = asyncio.get_running_loop().time()
        wait_s = rate.add(load.entry_count, now)
        if wait_s == 0:
            return
        self.rate_passes_at = now + wait_s
        try:
            await asyncio.sleep(wait_s)
        except asyncio.CancelledError:
            rate.give_back(load.entry_count)
            self.rate_passes_at = 0.0
            raise


@dataclass(slots=True, eq=False)
class _Admission:
    """Packages that wait to be admitted."""

    share: CallShare
    load: Load
    admitted: asyncio.Future[None]
