"""Writes: streams in both directions, repeated from the last checkpoint."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import grpc

from provgate_client.adapter.conversion import to_progress
from provgate_client.adapter.messages import EntryKind, check_entries, requests_of
from provgate_client.adapter.progress import ProgressCallback, WriteLedger
from provgate_client.adapter.session import GatewaySession
from provgate_client.errors import CallStatus, RetryableCallError
from provgate_runtime.counted import counted

logger = logging.getLogger(__name__)


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


E = TypeVar("E")


def write(session: GatewaySession, kind: EntryKind[E], entries: Iterable[E], progress: ProgressCallback | None) -> bool:
    """Writes `entries`, which may be iterated again and again with the same result, of any number.

    Returns:
        True when every entry is acked; False when the write may be tried again, unless the settings ask to raise then.

    Raises:
        InvalidValueError: an entry cannot be kept; nothing was sent.
        CallError: the gateway refused; trying again is of no use.
    """
    if check_entries(kind, entries) == 0:
        return True
    try:
        _Write(session, kind, entries, progress).run()
    except RetryableCallError as error:
        if session.settings.raise_on_failure:
            raise
        fields = {"method": kind.method, "reason": str(error)}
        logger.warning("%s may be tried again: %s", kind.method, error, extra={"action": "write.fail", **fields})
        return False
    return True


class _Write:
    """One write, in the thread of its caller."""

    def __init__(
        self, session: GatewaySession, kind: EntryKind[Any], entries: Iterable[Any], progress: ProgressCallback | None
    ) -> None:
        self._session = session
        self._kind = kind
        self._entries = entries
        self._progress = progress
        self._ledger = WriteLedger()
        self._last_progress_s = time.monotonic()

    def run(self) -> None:
        self._session.repeat(self._call_once, lambda: self._last_progress_s)

    def _call_once(self) -> None:
        """Sends what is behind the last checkpoint in one call, and returns when it is acked."""
        settings = self._session.settings
        rest = islice(self._entries, self._ledger.start_call(), None)
        feed = RequestFeed(requests_of(self._kind, rest, settings.message_entries), settings.checkpoint_entries)
        call = self._session.rpc(self._kind.rpc)(feed, timeout=settings.write_timeout_s)
        try:
            acked_count = self._follow(call, feed)
        except grpc.RpcError as error:
            raise self._session.failure(error, self._kind.method) from error
        finally:
            # In this order: when the feed lets gRPC's thread go, there is no call left that could take its end for OK.
            call.cancel()
            feed.close()
        self._check_complete(feed, acked_count)

    def _follow(self, call: Any, feed: RequestFeed) -> int:
        acked_count = 0
        for response in call:
            counts = to_progress(response.progress)
            acked_count = counts.acked_count
            feed.acked(acked_count)
            if self._ledger.record(counts):
                self._last_progress_s = time.monotonic()
                if self._progress is not None:
                    self._progress(self._kind.method, self._ledger.progress)
        return acked_count

    def _check_complete(self, feed: RequestFeed, acked_count: int) -> None:
        if feed.failure is not None:
            raise feed.failure
        if acked_count != feed.sent_count:
            sent = counted(feed.sent_count, "entry", "entries")
            message = f"{self._kind.method}: the call ended with {acked_count} of {sent} acked"
            raise RetryableCallError(message, CallStatus(grpc.StatusCode.OK))
