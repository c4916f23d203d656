"""Reads that stream: no database call on the gateway's loop, a bounded number at once, none of them for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final, Generic, TypeVar

from google.protobuf.message import Message

from provgate.v1 import errors_pb2
from provgate_gateway import errors
from provgate_gateway.read_failures import ReadFailures
from provgate_storage.errors import StorageError
from provgate_storage.local import RowStream

logger = logging.getLogger(__name__)

T = TypeVar("T")
M = TypeVar("M", bound=Message)

# Below the 4 MiB that a gRPC client takes unless told otherwise.
RESPONSE_MAX_BYTES: Final = 3 * 1024 * 1024


class StreamedReads:
    """Runs streamed reads. Belongs to one event loop.

    Args:
        count: how many run at once.
        wait_s: how long one more waits for its turn.
        idle_s: how long one waits for its client to take what it sent.
    """

    def __init__(self, count: int, wait_s: float, idle_s: float) -> None:
        self._turns = asyncio.Semaphore(count)
        self._wait_s = wait_s
        self._idle_s = idle_s
        self._failures = ReadFailures("streamed")
        # One thread more for each read: a query is ended from another thread than the one it runs on.
        self._threads = ThreadPoolExecutor(2 * count, thread_name_prefix="streamed-read")

    async def responses(
        self,
        open_stream: Callable[[], RowStream[T]],
        to_response: Callable[[list[T]], M],
        on_end: Callable[[Callable[[], None]], None],
    ) -> AsyncIterator[M]:
        """Yields the rows of a stream as responses that a client can receive.

        Args:
            open_stream: opens the stream; called on a thread.
            to_response: makes a response of rows; called on a thread.
            on_end: takes what is to be called when the RPC ends, however it does.

        Raises:
            CallError: the storage cannot be read, too many reads run, or the client takes too long.
        """
        await self._take_turn()
        read = _Read(open_stream, to_response, self._threads, self._failures, self._turns.release)
        on_end(read.end)
        loop = asyncio.get_running_loop()
        try:
            while not read.is_over:
                for response in await read.next_responses():
                    idle = loop.call_later(self._idle_s, read.end)
                    try:
                        yield response
                    finally:
                        idle.cancel()
                    if read.ended:
                        raise errors.timed_out(errors_pb2.ERROR_REASON_READ_TIMEOUT, "the answer was not taken in time")
        finally:
            read.end()

    def close(self) -> None:
        """Gives the threads back."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _take_turn(self) -> None:
        try:
            async with asyncio.timeout(self._wait_s):
                await self._turns.acquire()
        except TimeoutError:
            raise errors.exhausted(errors_pb2.ERROR_REASON_TOO_MANY_CALLS, "too many streamed reads run") from None


class _Read(Generic[T, M]):
    """One streamed read. Its methods are called on the event loop, its queries run on threads."""

    def __init__(
        self,
        open_stream: Callable[[], RowStream[T]],
        to_response: Callable[[list[T]], M],
        threads: ThreadPoolExecutor,
        failures: ReadFailures,
        on_closed: Callable[[], None],
    ) -> None:
        self.is_over = False
        self.ended = False
        self._open_stream = open_stream
        self._to_response = to_response
        self._threads = threads
        self._failures = failures
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._stream: RowStream[T] | None = None
        self._chunks: Iterator[list[T]] | None = None
        self._fetching: Future[list[M]] | None = None

    async def next_responses(self) -> list[M]:
        """Returns the next rows as responses, and sets `is_over` where none follow."""
        self._fetching = self._threads.submit(self._fetch)
        try:
            responses = await asyncio.wrap_future(self._fetching)
        except StorageError as error:
            self._failures.failed(error)
            raise errors.of_storage(error) from error
        self._failures.succeeded()
        return responses

    def end(self) -> None:
        """Ends the query, gives its connection back once no thread uses it, and lets the next read have its turn."""
        if self.ended:
            return
        self.ended = True
        if self._fetching is None:
            self._on_closed()
            return
        if not self._fetching.done() and self._stream is not None:
            self._run_on_thread(self._stream.cancel)
        # Called by whoever ends the fetch: the loop, or the thread that fetched.
        self._fetching.add_done_callback(lambda _: self._run_on_thread(self._close))

    def _run_on_thread(self, work: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the threads were given back: the gateway is stopping
            self._threads.submit(work)

    def _close(self) -> None:
        try:
            if self._stream is not None:
                self._stream.close()
        except StorageError as error:
            # It matters to nobody: the connection is thrown away. Where the storage is away each would say so.
            logger.debug(
                "a streamed read did not close: %s", error, extra={"action": "storage.close", "reason": str(error)}
            )
        finally:
            self._loop.call_soon_threadsafe(self._on_closed)

    def _fetch(self) -> list[M]:
        if self._stream is None or self._chunks is None:
            self._stream = self._open_stream()
            if self.ended:
                # There was nothing to cancel when it ended.
                self.is_over = True
                return []
            self._chunks = iter(self._stream)
        rows = next(self._chunks, None)
        self.is_over = rows is None or self._stream.is_over
        return [] if rows is None else _responses(rows, self._to_response)


def _responses(rows: list[T], to_response: Callable[[list[T]], M]) -> list[M]:
    """Returns rows as responses that a client can receive."""
    response = to_response(rows)
    if len(rows) == 1 or response.ByteSize() <= RESPONSE_MAX_BYTES:
        return [response]
    middle = len(rows) // 2
    return _responses(rows[:middle], to_response) + _responses(rows[middle:], to_response)
