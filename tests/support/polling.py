"""Waits until something holds, from a thread and on an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

# It only guards against hanging: a busy machine is no failure.
TIMEOUT_S = 60.0


def eventually(reached: Callable[[], bool], what: str, timeout_s: float = TIMEOUT_S) -> None:
    """Returns once something holds; fails if it does not within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


async def until(reached: Callable[[], bool]) -> None:
    """Returns once something holds. Raises `TimeoutError` if it does not within `TIMEOUT_S`."""
    async with asyncio.timeout(TIMEOUT_S):
        while not reached():  # noqa: ASYNC110 - it is asked of objects that tell nobody of their changes
            await asyncio.sleep(0.002)
