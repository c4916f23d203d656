"""Reads of one result: on threads of their own, so that they never wait for streamed ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from provgate_gateway import errors
from provgate_gateway.read_failures import ReadFailures
from provgate_storage.errors import StorageError

T = TypeVar("T")


class UnaryReads:
    """Runs unary reads, so many at once; more of them wait. Belongs to one event loop."""

    def __init__(self, count: int) -> None:
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="unary-read")
        self._failures = ReadFailures("unary")

    async def run(self, read: Callable[[], T]) -> T:
        """Returns what `read` does on a thread. Raises `CallError` where the storage cannot be read."""
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._threads, read)
        except StorageError as error:
            self._failures.failed(error)
            raise errors.of_storage(error) from error
        self._failures.succeeded()
        return answer

    def close(self) -> None:
        """Gives the threads back."""
        self._threads.shutdown(wait=False, cancel_futures=True)
