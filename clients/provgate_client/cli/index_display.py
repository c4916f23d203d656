"""Shows how far an index has come: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from provgate_client.git.report import IndexProgress

_LINE_EVERY_S: Final = 5.0


class IndexDisplay(Protocol):
    """What is told of an index while it runs. A context manager. `update` is for one thread at a time."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def update(self, progress: IndexProgress) -> None:
        """Shows `progress`."""


def index_display() -> IndexDisplay:
    """Returns the display that fits standard error."""
    console = Console(stderr=True)
    return _Bars(console) if console.is_terminal else _Lines(console)


class _Rate:
    """Entries acked a second, since the start."""

    def __init__(self) -> None:
        self._start_s = time.monotonic()

    def of(self, progress: IndexProgress) -> float:
        return progress.entries_acked / max(time.monotonic() - self._start_s, 0.001)


class _Bars:
    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description:<9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._bars = Progress(*columns, TimeElapsedColumn(), console=console)
        self._revisions = self._bars.add_task("revisions", total=None, note="")
        self._entries = self._bars.add_task("entries", total=None, note="acked of those sent")
        self._rate = _Rate()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def update(self, progress: IndexProgress) -> None:
        known = f"{progress.revisions_known:,} known before" if progress.revisions_known else ""
        completed = progress.revisions_known + progress.revisions_done
        self._bars.update(self._revisions, total=progress.revisions_total, completed=completed, note=known)
        rate = f"acked of those sent, {self._rate.of(progress):,.0f}/s"
        self._bars.update(self._entries, total=progress.entries_sent, completed=progress.entries_acked, note=rate)


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_s = 0.0
        self._waiting: IndexProgress | None = None
        self._rate = _Rate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._waiting is not None:
            self._print(self._waiting)

    def update(self, progress: IndexProgress) -> None:
        now_s = time.monotonic()
        if now_s < self._next_s:
            self._waiting = progress
            return
        self._next_s = now_s + _LINE_EVERY_S
        self._waiting = None
        self._print(progress)

    def _print(self, progress: IndexProgress) -> None:
        self._console.print(
            f"revisions {progress.revisions_known + progress.revisions_done} of {progress.revisions_total}, "
            f"entries sent {progress.entries_sent}, acked {progress.entries_acked}, "
            f"{self._rate.of(progress):.0f}/s",
            soft_wrap=True,
            highlight=False,
        )
