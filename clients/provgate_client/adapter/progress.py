"""What one write knows to be acked, over all the calls that it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class WriteProgress:
    """Counts of entries that never decrease; received >= published >= acked.

    Attributes:
        received_count: entries that the gateway has read and found valid.
        published_count: entries that the broker holds safely, or held until they were acked.
        acked_count: entries that are committed in the local storage.
    """

    received_count: int = 0
    published_count: int = 0
    acked_count: int = 0


ProgressCallback: TypeAlias = Callable[[str, WriteProgress], None]
"""Called with the name of the method that writes ("content_add") and the counts of that one call of it, resends
included, in the thread that made the call: from many threads at once where many write. What it raises ends the call."""


class WriteLedger:
    """The bookkeeping of one write. Pure; belongs to one thread.

    A gateway tells how many entries of a call are acked, not which. Where it has acked as many as it has received, they
    are the first ones: that is a *checkpoint*, and a later call of the same write starts behind it.

    Attributes:
        checkpoint_count: that many entries, the first ones of the write, are acked.
        progress: the most that is known of the whole write; never decreases.
    """

    def __init__(self) -> None:
        self.checkpoint_count = 0
        self.progress = WriteProgress()
        self._start_count = 0

    def start_call(self) -> int:
        """Returns how many entries the call that starts now leaves out."""
        self._start_count = self.checkpoint_count
        return self._start_count

    def record(self, counts: WriteProgress) -> bool:
        """Takes the counts of the call under way. Returns whether the write has come further than ever before."""
        if counts.received_count == counts.acked_count:
            self.checkpoint_count = max(self.checkpoint_count, self._start_count + counts.acked_count)
        before = self.progress
        self.progress = WriteProgress(
            max(before.received_count, self._start_count + counts.received_count),
            max(before.published_count, self._start_count + counts.published_count),
            max(before.acked_count, self._start_count + counts.acked_count),
        )
        return self.progress != before
