"""Streamed reads: queries run on threads, a limited number at once, and none waits for its client without limit.

A read may wait `idle_s` seconds for its client. Each `min_rate` bytes that the client reads give it back one second:
a client may pause, but in the long run it reads at that rate or loses the read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Final, Generic, TypeAlias, TypeVar

from google.protobuf.message import Message

from provgate.v1 import errors_pb2
from provgate_gateway import errors
from provgate_gateway.read.failures import ReadFailures
from provgate_gateway.rpc.call_limits import CallLimit
from provgate_gateway.rpc.handler_wrappers import at_end_of_call
from provgate_storage.database.local import RowStream
from provgate_storage.errors import StorageError

logger = logging.getLogger(__name__)

T = TypeVar("T")
M = TypeVar("M", bound=Message)

# Below the 4 MiB that a gRPC client accepts by default.
RESPONSE_MAX_BYTES: Final = 3 * 1024 * 1024

Answer: TypeAlias = tuple[RowStream[T], Callable[[list[T]], M]]
"""The rows of an answer, and what makes a response of some of them."""

OpenRead: TypeAlias = Callable[[], Answer[T, M]]
"""Decodes and checks a request and opens its query; on a thread."""


class StreamedReads:
    """Runs the streamed reads of one class. Belongs to one event loop.

    Args:
        limit: gives places and turns.
        idle_s: how long a read waits for its client, beside what the client earns.
        min_rate: how many bytes a client reads to earn a second.
    """

    def __init__(self, limit: CallLimit, idle_s: float, min_rate: int) -> None:
        self._limit = limit
        self._idle_s = idle_s
        self._min_rate = min_rate
        self._failures = ReadFailures("streamed")
        # Two threads for each read: a query is cancelled from another thread than the one it runs on.
        self._threads = ThreadPoolExecutor(2 * limit.turns, thread_name_prefix="streamed-read")

    async def responses(self, caller: str, request_bytes: int, open_read: OpenRead[T, M]) -> AsyncIterator[M]:
        """Yields the rows of a read as responses that a client can receive, in the task that serves its RPC.

        Args:
            caller: whose share of the places and turns it takes.
            request_bytes: the size of the encoded request.
            open_read: opens the query, when the read has its turn: until then nothing is decoded.

        Raises:
            CallError: the storage cannot be read, too many reads run, or the client reads too slowly.
        """
        at_end_of_call(self._limit.enter(caller, request_bytes).close)
        read = _Read(open_read, self._threads, self._failures, await self._limit.turn(caller))
        at_end_of_call(read.end)
        loop = asyncio.get_running_loop()
        idle_left_s = self._idle_s
        try:
            while not read.is_over:
                for response, size_bytes in await read.next_responses():
                    idle_timer = loop.call_later(idle_left_s, read.end)
                    offered_at = loop.time()
                    try:
                        yield response
                    finally:
                        idle_timer.cancel()
                    if read.has_ended:
                        message = "the client did not read the answer in time, or reads too slowly"
                        raise errors.timed_out(errors_pb2.ERROR_REASON_READ_TIMEOUT, message)
                    idle_left_s -= loop.time() - offered_at
                    idle_left_s = min(self._idle_s, idle_left_s + size_bytes / self._min_rate)
        finally:
            read.end()

    def close(self) -> None:
        """Gives the threads back."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class _Read(Generic[T, M]):
    """One streamed read. Its methods are called on the event loop, its queries run on threads.

    Attributes:
        is_over: whether all rows were read.
        has_ended: whether `end` was called.
    """

    def __init__(
        self, open_read: OpenRead[T, M], threads: ThreadPoolExecutor, failures: ReadFailures, turn: ExitStack
    ) -> None:
        self.is_over = False
        self.has_ended = False
        self._threads = threads
        self._failures = failures
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self._stream: RowStream[T] | None = None
        self._steps = self._query(open_read)
        self._fetching: Future[list[tuple[M, int]]] | None = None

    def _query(self, open_read: OpenRead[T, M]) -> Generator[list[tuple[M, int]]]:
        """Opens the query and yields its rows as responses with their sizes; each step runs on a thread."""
        self._stream, to_response = open_read()
        if self.has_ended:
            # When it ended there was no query to cancel.
            self.is_over = True
            return
        for rows in self._stream:
            self.is_over = self._stream.is_over
            yield _responses(rows, to_response)
        self.is_over = True

    async def next_responses(self) -> list[tuple[M, int]]:
        """Returns the next rows as responses with their sizes, and sets `is_over` if none follow."""
        self._fetching = self._threads.submit(next, self._steps, [])
        try:
            responses = await asyncio.wrap_future(self._fetching)
        except StorageError as error:
            self._failures.failed(error)
            raise errors.of_storage(error) from error
        self._failures.succeeded()
        return responses

    def end(self) -> None:
        """Ends the query, gives its connection back when no thread uses it, and then its turn. May be called again."""
        if self.has_ended:
            return
        self.has_ended = True
        # The callback below must not keep the read, and its rows, until a garbage collection.
        fetching, self._fetching = self._fetching, None
        if fetching is None:
            self._turn.close()
            return
        if not fetching.done() and self._stream is not None:
            self._run_on_thread(self._stream.cancel)
        # Called where the fetch ends: on the loop, or on the thread that fetches.
        fetching.add_done_callback(lambda _: self._run_on_thread(self._close))

    def _run_on_thread(self, work: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the threads were given back: the gateway stops
            self._threads.submit(work)

    def _close(self) -> None:
        try:
            if self._stream is not None:
                self._stream.close()
        except StorageError as error:
            # It has no effect: the connection is closed. During an outage each read would log it.
            logger.debug(
                "a streamed read did not close: %s", error, extra={"action": "storage.close", "reason": str(error)}
            )
        finally:
            self._loop.call_soon_threadsafe(self._turn.close)
            # Suspended, it would keep the read and its rows too.
            self._steps.close()


def _responses(rows: list[T], to_response: Callable[[list[T]], M]) -> list[tuple[M, int]]:
    """Returns rows as responses that a client can receive, with their sizes in bytes."""
    response = to_response(rows)
    size_bytes = response.ByteSize()
    if len(rows) == 1 or size_bytes <= RESPONSE_MAX_BYTES:
        return [(response, size_bytes)]
    middle = len(rows) // 2
    return _responses(rows[:middle], to_response) + _responses(rows[middle:], to_response)
