"""How much of packages a process may hold."""

from __future__ import annotations

from collections import deque


class Room:
    """Counts the bytes of packages in hand against a bound. Pure bookkeeping; belongs to one thread.

    A queue whose package found no room is cut off, so that no more comes of it; queues are let in again, longest cut
    off first, when half of the room is free and as far as the largest packages that they had so far would fit.

    Args:
        bound_bytes: how much may be in hand. One package that is larger is let in alone.
        prefetch_count: how many packages may come of a queue at once.
    """

    def __init__(self, bound_bytes: int, prefetch_count: int) -> None:
        self._bound_bytes = bound_bytes
        self._prefetch_count = prefetch_count
        self._largest_bytes: dict[str, int] = {}
        self._cut_off: deque[str] = deque()
        self.held_bytes = 0

    def admit(self, queue: str, size_bytes: int) -> bool:
        """Returns whether a package is let in, and counts it then. Otherwise its queue is cut off from now on."""
        self._largest_bytes[queue] = max(self._largest_bytes.get(queue, 0), size_bytes)
        if self.held_bytes and self.held_bytes + size_bytes > self._bound_bytes:
            if queue not in self._cut_off:
                self._cut_off.append(queue)
            return False
        self.held_bytes += size_bytes
        return True

    def leave(self, size_bytes: int) -> list[str]:
        """Counts a package out. Returns the queues that are to be let in again, which are not cut off any more."""
        self.held_bytes -= size_bytes
        readmitted: list[str] = []
        if not self._cut_off or self.held_bytes > self._bound_bytes // 2:
            return readmitted
        free_bytes = self._bound_bytes - self.held_bytes
        while self._cut_off:
            free_bytes -= self._largest_bytes[self._cut_off[0]] * self._prefetch_count
            # With nothing in hand one is let in whatever it may bring: there would be no next time.
            if free_bytes < 0 and (readmitted or self.held_bytes):
                break
            readmitted.append(self._cut_off.popleft())
        return readmitted

    def forget_cut_off(self) -> None:
        """Lets all queues in again: their consumers are registered anew."""
        self._cut_off.clear()
