"""How far a write has come: its counts, and the checkpoint from which it is sent again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class WriteProgress:
    """Counts of entries. They never decrease; received >= published >= acked.

    Attributes:
        received_count: entries that the gateway has read and found valid.
        published_count: entries that the broker holds safely, or held until they were acked.
        acked_count: entries that are committed in the local storage.
    """

    received_count: int = 0
    published_count: int = 0
    acked_count: int = 0


ProgressCallback: TypeAlias = Callable[[str, WriteProgress], None]
"""Called with the name of the method that writes ("content_add") and the counts of that one write, resends included.
It runs in the thread that writes, and an exception from it ends the write. Several writes may call it at once."""


class WriteLedger:
    """The counts of one write over all the gRPC calls that it takes. For one thread.

    The gateway reports how many entries of a call are acked, not which. When it has acked all that it received, these
    are the first ones of the call: this point is a *checkpoint*. The next call of the same write starts there.

    Attributes:
        checkpoint_count: how many entries, counted from the first, are acked for certain.
        progress: the counts of the whole write.
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
        """Adds the counts of the current call. Returns whether the whole write has made progress."""
        start_count, before = self._start_count, self.progress
        if counts.received_count == counts.acked_count:
            self.checkpoint_count = max(self.checkpoint_count, start_count + counts.acked_count)
        self.progress = WriteProgress(
            max(before.received_count, start_count + counts.received_count),
            max(before.published_count, start_count + counts.published_count),
            max(before.acked_count, start_count + counts.acked_count),
        )
        return self.progress != before
