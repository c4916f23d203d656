"""The memory budget of all writes together: it bounds the bytes of messages and packages in the gateway.

The budget covers a message from before it is read until its last package is acked. A call reserves what a message of
the largest size becomes before it asks gRPC for one. When the message has come, the reservation shrinks to its own
size; when it is split, to that of its packages; when flow control admits these, they count as packages.

Callers share the budget. The caller whose messages hold least is read next. A caller may have one more message read
while its messages hold less than three times what is free, as in `call_limits`: calls that send nothing do not keep
those of other callers from being read.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Awaitable
from typing import Final

MESSAGE_MAX_BYTES: Final = 4 * 1024 * 1024
"""The largest request message."""

# What the packages of a message may take beside its content, one package of each range.
_PACKAGES_BYTES: Final = 16 * 1024

# The messages of a caller with a quota hold a quarter of the budget at most: a caller that its own limits slow down
# must not hold what callers without limits need.
_QUOTA_PART: Final = 4

_FREE_SHARE: Final = 3

# How long the next message of a call may take to come while other calls wait to be read.
_IDLE_MAX_S: Final = 10.0


class MemoryBudgetError(Exception):
    """The budget has no bytes for the message of a call."""


class MemoryBudget:
    """The bytes that all writes hold. Belongs to one event loop.

    Args:
        total_bytes: the budget. A message that is larger is read when nothing else holds bytes.
    """

    def __init__(self, total_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._package_bytes = 0
        self._message_bytes = 0
        self._message_bytes_by_caller: dict[str, int] = {}
        # The calls of each caller that wait to be read, in order. The first of the callers that hold least is next.
        self._waiting: dict[str, deque[MessageMemory]] = {}
        # The time limits of the calls whose next message has not come, when each was asked for, and whose it is.
        self._receiving: dict[asyncio.Timeout, tuple[float, str]] = {}
        self._limits_are_set = False

    @property
    def message_bytes(self) -> int:
        """What messages hold that are not admitted: they are being read, are being split, or wait."""
        return self._message_bytes

    def add_packages(self, size_bytes: int) -> None:
        """Counts packages that are admitted."""
        self._package_bytes += size_bytes

    def remove_packages(self, size_bytes: int) -> None:
        """Gives back what packages held that are acked or dropped. `grant_reservations` lets calls have it."""
        self._package_bytes -= size_bytes

    def grant_reservations(self) -> None:
        """Lets calls be read, as far as the budget and the shares of their callers allow."""
        over_share: set[str] = set()
        while callers := [caller for caller in self._waiting if caller not in over_share]:
            caller = min(callers, key=self._held_bytes)
            memory = self._waiting[caller][0]
            if not memory.granted.cancelled():
                if self._is_over_share(memory):
                    over_share.add(caller)
                    continue
                if not self._fits(memory.wanted_bytes):
                    break
                self._resize(memory, memory.wanted_bytes)
                memory.granted.set_result(None)
            self._remove(memory)
        self._set_limits()

    async def _receive(self, caller: str, message: Awaitable[object]) -> object:
        """Awaits a message. Raises `TimeoutError` if it is late while callers wait that hold no more than `caller`."""
        async with asyncio.timeout(None) as limit:
            self._receiving[limit] = asyncio.get_running_loop().time(), caller
            try:
                self._set_limits()
                return await message
            finally:
                del self._receiving[limit]

    def _resize(self, memory: MessageMemory, size_bytes: int) -> None:
        more_bytes = size_bytes - memory.size_bytes
        if more_bytes > 0 and self._used_bytes > memory.size_bytes and not self._fits(more_bytes):
            raise MemoryBudgetError
        memory.size_bytes += more_bytes
        self._message_bytes += more_bytes
        held_bytes = self._message_bytes_by_caller.pop(memory.caller, 0) + more_bytes
        if held_bytes:
            self._message_bytes_by_caller[memory.caller] = held_bytes
        if more_bytes < 0:
            self.grant_reservations()

    @property
    def _used_bytes(self) -> int:
        return self._package_bytes + self._message_bytes

    def _fits(self, size_bytes: int) -> bool:
        return self._used_bytes == 0 or self._used_bytes + size_bytes <= self._total_bytes

    def _held_bytes(self, caller: str) -> int:
        return self._message_bytes_by_caller.get(caller, 0)

    def _add(self, memory: MessageMemory) -> None:
        self._waiting.setdefault(memory.caller, deque()).append(memory)
        self.grant_reservations()

    def _remove(self, memory: MessageMemory) -> None:
        of_caller = self._waiting.pop(memory.caller, deque())
        if memory in of_caller:
            of_caller.remove(memory)
        if of_caller:
            # At the end: callers that hold equally little come before it.
            self._waiting[memory.caller] = of_caller

    def _is_over_share(self, memory: MessageMemory) -> bool:
        held_bytes = self._held_bytes(memory.caller)
        if held_bytes == 0:
            return False
        held_bytes += memory.wanted_bytes
        if memory.has_quota and held_bytes > self._total_bytes // _QUOTA_PART:
            return True
        return held_bytes > _FREE_SHARE * (self._total_bytes - self._used_bytes)

    def _set_limits(self) -> None:
        """Limits the time of calls that send nothing while callers wait that hold no more than theirs."""
        if not self._waiting and not self._limits_are_set:
            return
        self._limits_are_set = bool(self._waiting)
        least_bytes = min(map(self._held_bytes, self._waiting), default=sys.maxsize)
        for limit, (asked_at, caller) in self._receiving.items():
            ends_at = asked_at + _IDLE_MAX_S if self._held_bytes(caller) >= least_bytes else None
            if limit.when() != ends_at and not limit.expired():
                limit.reschedule(ends_at)


class MessageMemory:
    """What the current message of one call holds of the budget, until its packages are admitted.

    Args:
        budget: of all calls.
        caller: who makes the call.
        has_quota: whether the caller has limits of its own.

    Attributes:
        size_bytes: what the message holds.
        wanted_bytes: what the call waits for, or waited for last.
        granted: done when the call may be read.
        waiting: whether the call waits until it may be read.
    """

    def __init__(self, budget: MemoryBudget, caller: str, *, has_quota: bool) -> None:
        self.caller = caller
        self.has_quota = has_quota
        self.size_bytes = 0
        self.wanted_bytes = 0
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting = False
        self._budget = budget

    async def reserve(self, growth: float) -> None:
        """Waits until the budget has memory for a message of the largest size. Once at a time.

        Args:
            growth: the size of a message's packages by its own size, at most, beside what each package takes anyway.
        """
        self.wanted_bytes = _packages_bytes(MESSAGE_MAX_BYTES, growth)
        self.granted = asyncio.get_running_loop().create_future()
        self.waiting = True
        self._budget._add(self)
        try:
            await self.granted
        except asyncio.CancelledError:
            if self.granted.cancelled():
                self._budget._remove(self)
                self._budget.grant_reservations()
            else:
                self.resize(0)
            raise
        finally:
            self.waiting = False

    async def receive(self, message: Awaitable[object], growth: float) -> bytes | None:
        """Awaits the message for which memory is reserved, and gives back what it does not need.

        Args:
            message: the read of the next message; it returns `grpc.aio.EOF` if none follows.
            growth: as for `reserve`.

        Returns:
            The encoded message; None if none follows.

        Raises:
            MemoryBudgetError: the client sends nothing, and other calls wait to be read.
        """
        body: bytes | None = None
        try:
            received = await self._budget._receive(self.caller, message)
            body = received if isinstance(received, bytes) else None
        except TimeoutError:
            raise MemoryBudgetError from None
        finally:
            self.resize(0 if body is None else _packages_bytes(len(body), growth))
        return body

    def resize(self, size_bytes: int) -> None:
        """Sets what the message holds. Raises `MemoryBudgetError` if that is more than before and does not fit."""
        self._budget._resize(self, size_bytes)


def _packages_bytes(message_bytes: int, growth: float) -> int:
    """Returns what the packages of a message take, at most."""
    return int(message_bytes * growth) + _PACKAGES_BYTES
