"""What is the same in the streams of every database: one thread reads, any may cancel."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Generic, Self, TypeVar

from provgate_storage.errors import StorageError, StorageTimeoutError, StorageUnavailableError

T = TypeVar("T")
H = TypeVar("H")


class CancellableStream(ABC, Generic[T, H]):
    """A `RowStream[T]` that holds an `H` of a pool from its first chunk to its end or `close`.

    It is iterated once, by one thread.

    Attributes:
        is_over: whether the chunk yielded last is known to be the last.
    """

    def __init__(self) -> None:
        self.is_over = False
        # Held while what is held is cancelled or given up: what is back in its pool may run somebody else's query.
        self._lock = threading.RLock()
        self._held: H | None = None
        self._cancelled = False
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[list[T]]:
        """Yields chunks of rows, none of them empty.

        Raises:
            StorageBusyError: nothing became free in time to read with.
            StorageUnavailableError: the connection was lost, or the stream was cancelled.
            StorageTimeoutError: a query took longer than its time limit.
            StorageForbiddenError: the user may not read what is asked for.
            SchemaMismatchError: the database was never set up.
        """
        try:
            self.check_running()
            taken = self._take()
            with self._lock:
                self._held = taken
            yield from self._chunks(taken)
        except StorageTimeoutError:
            # A server has one code for a query that took too long and for one that was cancelled.
            self.check_running()
            raise
        finally:
            self.close()

    def cancel(self) -> None:
        """Ends the query from any thread, over another connection to the server.

        The thread that iterates gets `StorageUnavailableError` where it waits or when it asks for the next chunk.
        """
        with self._lock:
            self._cancelled = True
            if self._held is not None:
                with suppress(StorageError):  # the server cannot be reached: the query's own connection is lost too
                    self._end(self._held)

    def close(self) -> None:
        """Ends the query and gives back what it holds. Does nothing the second time."""
        with self._lock:
            self._closed = True
            held, self._held = self._held, None
            if held is not None:
                self._give_back(held, self._cancelled)

    def check_running(self) -> None:
        """Raises `StorageUnavailableError` once the stream was cancelled or closed."""
        if self._cancelled:
            raise StorageUnavailableError("the read was cancelled")
        if self._closed:
            raise StorageUnavailableError("the read was closed")

    @abstractmethod
    def _take(self) -> H:
        """Returns what to read with."""

    @abstractmethod
    def _chunks(self, taken: H) -> Iterator[list[T]]:
        """Yields the chunks; asks `check_running` before each."""

    @abstractmethod
    def _end(self, held: H) -> None:
        """Ends what runs at the server."""

    @abstractmethod
    def _give_back(self, held: H, cancelled: bool) -> None:
        """Gives back what `_take` took."""
