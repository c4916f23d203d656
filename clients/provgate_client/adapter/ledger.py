"""What one write knows to be acked, over all the calls that it takes."""

from __future__ import annotations

from provgate_client.progress import WriteProgress


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
