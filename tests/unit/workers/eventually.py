"""Waiting for what happens on a loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], bool]) -> None:
    """Returns when a condition holds, and raises `TimeoutError` where it does not within a minute."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - it is asked of objects that tell nobody of their changes
            await asyncio.sleep(0.002)
