"""The request stream of one call, as gRPC's thread takes it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any


class RequestFeed(Iterator[Any]):
    """Hands out messages until they end, or until it is closed.

    gRPC takes them on a thread of its own, as fast as the gateway's flow control lets it, one message ahead at most.
    After every `checkpoint_count` entries the feed waits until all that it handed out is acked: without such pauses a
    busy call would reach no checkpoint before its end.

    Attributes:
        sent_count: entries handed out.
        failure: what the caller's own collection raised while it was iterated; the stream ends there.
    """

    def __init__(self, requests: Iterator[tuple[int, Any]], checkpoint_count: int) -> None:
        self.sent_count = 0
        self.failure: Exception | None = None
        self._requests = requests
        self._checkpoint_count = checkpoint_count
        self._drained_count = 0
        self._acked_count = 0
        self._closed = False
        # Held while a message is built, so that nothing touches the caller's collection once close() has returned.
        self._condition = threading.Condition()

    def __next__(self) -> Any:
        with self._condition:
            self._condition.wait_for(self._may_go_on)
            if self._closed:
                raise StopIteration
            try:
                count, request = next(self._requests)
            except StopIteration:
                raise
            except Exception as error:  # It belongs to the caller's thread, which raises it.
                self.failure = error
                raise StopIteration from error
            self.sent_count += count
            return request

    def acked(self, count: int) -> None:
        """Takes note that `count` entries of those handed out are acked."""
        with self._condition:
            self._acked_count = count
            self._condition.notify_all()

    def close(self) -> None:
        """Ends the stream. The collection behind it is not touched any more when this returns."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def _may_go_on(self) -> bool:
        if self._acked_count == self.sent_count:
            self._drained_count = self.sent_count
        return self._closed or self.sent_count - self._drained_count < self._checkpoint_count
