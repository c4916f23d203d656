"""Runs a program until a signal stops it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any


def run_until_signal(
    work: Callable[[asyncio.Event], Coroutine[Any, Any, None]], kill: Callable[[], None] = lambda: None
) -> None:
    """Runs a coroutine on its own event loop; returns when it has ended.

    Args:
        work: takes an event that SIGTERM or SIGINT sets.
        kill: called at a second signal, before the process ends at once with exit code 1.
    """

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_signal() -> None:
            if stop.is_set():
                kill()
                os._exit(1)
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        await work(stop)

    asyncio.run(main())


async def completed(work: Awaitable[object], stop: asyncio.Event) -> bool:
    """Awaits `work` and returns True, or cancels it and returns False when `stop` is set first."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return working.done()
    finally:
        for future in (working, stopping):
            future.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)
