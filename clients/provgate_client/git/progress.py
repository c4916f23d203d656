"""What an index reports: its progress while it runs, and its result."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

LEFT_OUT_SHOWN_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class IndexProgress:
    """The progress of an index. No count ever decreases.

    Attributes:
        revisions_total: how many revisions the repository has, without those that are left out.
        revisions_known: how many of them the storage had already.
        revisions_done: how many were indexed, and are acked with all that belongs to them; total = known + done at the
            end.
        entries_sent: how many entries were sent to the storage; an entry that is sent again counts once.
        entries_acked: how many of them are acked.
    """

    revisions_total: int = 0
    revisions_known: int = 0
    revisions_done: int = 0
    entries_sent: int = 0
    entries_acked: int = 0


ProgressCallback: TypeAlias = Callable[[IndexProgress], None]


class LeftOutReason(StrEnum):
    """Why something of the repository is not in the index."""

    DATE_MISSING = "the commit has no author date that can be read"
    DATE_RANGE = "the author date is not in the years 1 to 9999"
    PATH_LENGTH = "the path is longer than 4096 bytes"
    NAME = "the name is empty, '.', or has a slash"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A commit, or an entry of a tree, that the index cannot hold.

    Attributes:
        reason: why.
        revision: the id of the commit.
        path: the entry's path, cut if it is very long; None if the whole commit is left out.
    """

    reason: LeftOutReason
    revision: bytes
    path: bytes | None = None


@dataclass(slots=True)
class IndexReport:
    """The result of an index.

    Attributes:
        revisions_total, revisions_known, revisions_done: as in `IndexProgress`.
        head_count: how many different revisions the refs name.
        entries: how many entries were written, by method, or by relation for `relation_add`.
        left_out: the first `LEFT_OUT_SHOWN_MAX` commits and entries that were left out.
        left_out_count: how many were left out, by reason, without those of revisions that the storage had already.
    """

    revisions_total: int = 0
    revisions_known: int = 0
    revisions_done: int = 0
    head_count: int = 0
    entries: Counter[str] = field(default_factory=Counter)
    left_out: list[LeftOut] = field(default_factory=list)
    left_out_count: Counter[LeftOutReason] = field(default_factory=Counter)

    @property
    def is_complete(self) -> bool:
        """Whether everything is in the index; the command line exits with 1 if not."""
        return not self.left_out_count

    def leave_out(self, item: LeftOut) -> None:
        """Counts `item`, and keeps it if it is one of the first."""
        self.left_out_count[item.reason] += 1
        if len(self.left_out) < LEFT_OUT_SHOWN_MAX:
            self.left_out.append(item)


class ProgressMeter:
    """Adds up the progress of an index, and gives every change to a callback, one at a time. Thread-safe.

    Attributes:
        progress: the progress so far.
        entries: how many entries were acked, by what they are.
    """

    def __init__(self, callback: ProgressCallback | None) -> None:
        self.progress = IndexProgress()
        self.entries: Counter[str] = Counter()
        self._callback = callback
        self._lock = threading.Lock()

    def add(self, *, total: int = 0, known: int = 0, done: int = 0, sent: int = 0) -> None:
        """Adds to the counts of revisions, and of entries that are sent."""
        with self._lock:
            self._add(IndexProgress(total, known, done, sent))

    def acked(self, what: str, count: int) -> None:
        """Adds entries that are acked, under the name of what they are."""
        with self._lock:
            self.entries[what] += count
            self._add(IndexProgress(entries_acked=count))

    def _add(self, more: IndexProgress) -> None:
        before = self.progress
        self.progress = IndexProgress(
            before.revisions_total + more.revisions_total,
            before.revisions_known + more.revisions_known,
            before.revisions_done + more.revisions_done,
            before.entries_sent + more.entries_sent,
            before.entries_acked + more.entries_acked,
        )
        if self._callback is not None:
            self._callback(self.progress)
