"""The counts of a running index, from several threads."""

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
    """How far an index has come. No count ever decreases.

    Attributes:
        revisions_total: how many revisions the repository has, those left out not counted.
        revisions_known: how many of them were found finished in the storage.
        revisions_done: how many were indexed, everything of theirs acked; total = known + done at the end.
        entries_sent: how many entries were handed to the storage; what is tried again counts once.
        entries_acked: how many of them the storage has taken for good.
    """

    revisions_total: int
    revisions_known: int
    revisions_done: int
    entries_sent: int
    entries_acked: int


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
        path: the entry's path, cut where it is very long; None where the whole commit is left out.
    """

    reason: LeftOutReason
    revision: bytes
    path: bytes | None = None


@dataclass(slots=True)
class IndexReport:
    """What an index has done.

    Attributes:
        revisions_total, revisions_known, revisions_done: as in `IndexProgress`.
        head_count: how many distinct revisions the refs name.
        entries: how many entries were written, by method, or by relation for `relation_add`.
        left_out: the first `LEFT_OUT_SHOWN_MAX` commits and entries that were left out.
        left_out_count: how many were left out, by reason. Revisions that were found finished are not looked at again.
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
        """Whether everything is in the index; the command line exits with 1 where it is not."""
        return not self.left_out_count

    def leave_out(self, item: LeftOut) -> None:
        """Counts `item`, and keeps it while there are few."""
        self.left_out_count[item.reason] += 1
        if len(self.left_out) < LEFT_OUT_SHOWN_MAX:
            self.left_out.append(item)


ProgressCallback: TypeAlias = Callable[[IndexProgress], None]


class ProgressMeter:
    """Counts, and shows every change to a callback, from one thread at a time. Thread-safe."""

    def __init__(self, callback: ProgressCallback | None) -> None:
        self._callback = callback
        self._lock = threading.Lock()
        self._total_count = self._known_count = self._done_count = self._sent_count = 0
        self._acked: Counter[str] = Counter()

    def listed(self, count: int) -> None:
        """Sets how many revisions there are."""
        with self._lock:
            self._total_count = count
            self._show()

    def known(self, count: int) -> None:
        """Counts revisions that were found finished."""
        with self._lock:
            self._known_count += count
            self._show()

    def done(self, count: int) -> None:
        """Counts revisions that are finished now."""
        with self._lock:
            self._done_count += count
            self._show()

    def sent(self, count: int) -> None:
        """Counts entries of a call that begins."""
        with self._lock:
            self._sent_count += count
            self._show()

    def acked(self, what: str, count: int) -> None:
        """Counts entries of a call that was taken, under the name of what they are."""
        with self._lock:
            self._acked[what] += count
            self._show()

    def entries(self) -> Counter[str]:
        """Returns how many entries were acked, by what they are."""
        with self._lock:
            return Counter(self._acked)

    def snapshot(self) -> IndexProgress:
        """Returns the counts of this moment."""
        with self._lock:
            return self._snapshot()

    def _snapshot(self) -> IndexProgress:
        return IndexProgress(
            self._total_count, self._known_count, self._done_count, self._sent_count, self._acked.total()
        )

    def _show(self) -> None:
        if self._callback is not None:
            self._callback(self._snapshot())
