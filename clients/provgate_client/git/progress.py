"""The counts of a running index, from several threads."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import TypeAlias

from provgate_client.git.report import IndexProgress

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
