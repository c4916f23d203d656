"""Unary reads: queries run on threads, and concurrent calls for the same key share one query.

A read that starts after an ack sees the write: no call joins a query that has begun. So of one content at most one
query runs and one waits, however many calls ask for it and however long it takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from provgate_gateway import errors
from provgate_gateway.read.failures import ReadFailures
from provgate_gateway.rpc.call_limits import CallLimit
from provgate_storage.errors import StorageError

T = TypeVar("T")


class _Query(Generic[T]):
    """A query that waits or runs, for all calls that joined it.

    Attributes:
        read: asks the storage.
        after: the query for the same key that runs before it.
        starting: a task for each caller whose turn it waits for; the first that has a turn begins the query.
        call_count: the calls that wait for its answer.
    """

    def __init__(self, read: Callable[[], T], after: _Query[T] | None) -> None:
        self.read = read
        self.after = after
        self.starting: dict[str, asyncio.Task[None]] = {}
        self.call_count = 0
        self.has_begun = False
        self.answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()


class UnaryReads(Generic[T]):
    """Runs the unary reads of one kind. Belongs to one event loop.

    Args:
        limit: gives places and turns.

    Attributes:
        limit: as given; a call takes its place before its request is decoded.
    """

    def __init__(self, limit: CallLimit) -> None:
        self.limit = limit
        self._threads = ThreadPoolExecutor(limit.turns, thread_name_prefix="unary-read")
        self._failures = ReadFailures("unary")
        # Of each key, the query that came last.
        self._last: dict[Hashable, _Query[T]] = {}

    async def run(self, caller: str, key: Hashable, read: Callable[[], T]) -> T:
        """Returns what `read` returns on a thread.

        Args:
            caller: whose share of the turns it takes.
            key: what is asked for: the result is the same for all calls with the same key.
            read: asks the storage.

        Raises:
            CallError: the storage cannot be read.
        """
        query = self._last.get(key)
        if query is None or query.has_begun:
            query = self._last[key] = _Query(read, query)
        if caller not in query.starting:
            query.starting[caller] = asyncio.create_task(self._start(query, caller, key))
        query.call_count += 1
        try:
            # Not the future itself: a call that is cancelled would cancel it for the others.
            await asyncio.wait([query.answer])
            return query.answer.result()
        except StorageError as error:
            raise errors.of_storage(error) from error
        finally:
            query.call_count -= 1
            if not (query.call_count or query.has_begun):
                self._forget(query, key)

    def close(self) -> None:
        """Gives the threads back."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _start(self, query: _Query[T], caller: str, key: Hashable) -> None:
        if query.after is not None:
            await asyncio.wait([query.after.answer])
        # The turn lasts until the thread is done, even if all calls have gone.
        with await self.limit.turn(caller):
            query.has_begun = True
            query.after = None
            own = query.starting.pop(caller)
            for other in query.starting.values():
                other.cancel()
            query.starting = {caller: own}
            await self._ask(query)
        if self._last.get(key) is query:
            del self._last[key]

    def _forget(self, query: _Query[T], key: Hashable) -> None:
        """Removes a query that no call waits for any more."""
        for task in query.starting.values():
            task.cancel()
        query.starting.clear()
        if query.after is None or query.after.answer.done():
            del self._last[key]
        else:
            # The next call for the key waits for the query that runs.
            self._last[key] = query.after

    async def _ask(self, query: _Query[T]) -> None:
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._threads, query.read)
        except Exception as error:  # noqa: BLE001  # the calls raise it
            if isinstance(error, StorageError):
                self._failures.failed(error)
            query.answer.set_exception(error)
            # Marks it as retrieved: all calls may have gone.
            query.answer.exception()
        else:
            self._failures.succeeded()
            query.answer.set_result(answer)
