"""Calls that may take longer than anybody waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def in_daemon_thread(call: Callable[[], T], timeout_s: float) -> T:
    """Returns what a call returns, which runs on a thread that does not hold up the end of the program.

    Raises:
        TimeoutError: it takes longer than `timeout_s`; it goes on meanwhile.
        Exception: what the call raised.
    """
    done: Future[T] = Future()

    def run() -> None:
        if not done.set_running_or_notify_cancel():
            return
        try:
            done.set_result(call())
        except Exception as error:  # noqa: BLE001  # whoever waits decides
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wait_for(asyncio.wrap_future(done), timeout_s)
