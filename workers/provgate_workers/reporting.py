"""How a process tells its supervisor how it is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from provgate_workers.child_order import REPORT_INTERVAL_S, ChildReport

_STDOUT: Final = 1


class Reporter:
    """Reports every second, and when it is asked to. Belongs to one event loop.

    Args:
        write: takes a report, encoded.
        first: what is reported until there is something to follow.
    """

    def __init__(self, write: Callable[[bytes], None], first: ChildReport) -> None:
        self._write = write
        self._report: Callable[[], ChildReport] = lambda: first

    def follow(self, report: Callable[[], ChildReport]) -> None:
        """Reports what `report` returns from now on."""
        self._report = report
        self.report_now()

    def report_now(self) -> None:
        """Reports without waiting for the next second."""
        self._write(self._report().line())

    async def run(self) -> None:
        """Reports until it is cancelled."""
        while True:
            self.report_now()
            await asyncio.sleep(REPORT_INTERVAL_S)


@asynccontextmanager
async def reporting(first: ChildReport) -> AsyncIterator[Reporter]:
    """Has the process report on its standard output for the time of a block."""
    # A supervisor that does not read, since it is suspended, must not suspend the process too.
    os.set_blocking(_STDOUT, False)
    reporter = Reporter(_say, first)
    running = asyncio.create_task(reporter.run())
    try:
        yield reporter
    finally:
        running.cancel()


def _say(line: bytes) -> None:
    # The supervisor that would have read it may be gone; standard input says so too.
    with suppress(BrokenPipeError, BlockingIOError):
        os.write(_STDOUT, line)
