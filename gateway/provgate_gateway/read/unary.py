"""Reads of one result: on threads of their own, and one look-up for all who ask for the same thing meanwhile.

A read that starts after an ack sees the write: nobody joins a look-up that has begun. So of one content at most one
look-up runs and one waits, however many ask for it and however long it takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from provgate_gateway import errors
from provgate_gateway.read.failures import ReadFailures
from provgate_gateway.rpc.call_limits import CallLimit, Slot
from provgate_storage.errors import StorageError

T = TypeVar("T")


class _LookUp(Generic[T]):
    """A look-up that waits or runs, for all who joined it."""

    def __init__(self, read: Callable[[], T], after: _LookUp[T] | None) -> None:
        self.read = read
        self.after = after
        # Those who have it begin, by the callers whose turns they wait for.
        self.starting: dict[str, asyncio.Task[None]] = {}
        self.asking_count = 0
        self.begun = False
        self.answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()


class UnaryReads(Generic[T]):
    """Runs unary reads of one kind. Belongs to one event loop.

    Args:
        limit: gives places and turns.
    """

    def __init__(self, limit: CallLimit) -> None:
        self._limit = limit
        self._threads = ThreadPoolExecutor(limit.turns, thread_name_prefix="unary-read")
        self._failures = ReadFailures("unary")
        self._last: dict[Hashable, _LookUp[T]] = {}

    def enter(self, caller: str, request_bytes: int) -> Slot:
        """Takes a place for a read whose request is of so many bytes. Raises `CallError` where there is none."""
        return self._limit.enter(caller, request_bytes)

    async def run(self, caller: str, key: Hashable, read: Callable[[], T]) -> T:
        """Returns what `read` does on a thread.

        Args:
            caller: whose share of the turns it takes.
            key: what is asked for: for all with the same key the result is the same.
            read: asks the storage.

        Raises:
            CallError: the storage cannot be read.
        """
        look_up = self._last.get(key)
        if look_up is None or look_up.begun:
            look_up = self._last[key] = _LookUp(read, look_up)
        if caller not in look_up.starting:
            # Of several callers the one that has a turn first begins: nobody waits for the share of another.
            look_up.starting[caller] = asyncio.create_task(self._start(look_up, caller, key))
        look_up.asking_count += 1
        try:
            # Who leaves does not take it from the others.
            await asyncio.wait([look_up.answer])
            return look_up.answer.result()
        except StorageError as error:
            raise errors.of_storage(error) from error
        finally:
            look_up.asking_count -= 1
            if not (look_up.asking_count or look_up.begun):
                self._forget(look_up, key)

    def close(self) -> None:
        """Gives the threads back."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _start(self, look_up: _LookUp[T], caller: str, key: Hashable) -> None:
        if look_up.after is not None:
            await asyncio.wait([look_up.after.answer])
        # Until the thread is done, also where those who asked have gone: only then is the turn free.
        with await self._limit.turn(caller):
            look_up.begun = True
            look_up.after = None
            own = look_up.starting.pop(caller)
            for other in look_up.starting.values():
                other.cancel()
            look_up.starting = {caller: own}
            await self._ask(look_up)
        if self._last.get(key) is look_up:
            del self._last[key]

    def _forget(self, look_up: _LookUp[T], key: Hashable) -> None:
        """Leaves out a look-up that nobody waits for any more."""
        for task in look_up.starting.values():
            task.cancel()
        look_up.starting.clear()
        if look_up.after is None or look_up.after.answer.done():
            del self._last[key]
        else:
            # Nobody joins it, and none runs beside it.
            self._last[key] = look_up.after

    async def _ask(self, look_up: _LookUp[T]) -> None:
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._threads, look_up.read)
        except Exception as error:  # noqa: BLE001  # those who asked are told
            if isinstance(error, StorageError):
                self._failures.failed(error)
            look_up.answer.set_exception(error)
            # Those who asked may all have gone.
            look_up.answer.exception()
        else:
            self._failures.succeeded()
            look_up.answer.set_result(answer)
