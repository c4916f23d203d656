"""How fast entries may come in."""

from __future__ import annotations

import time
from collections.abc import Callable


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
