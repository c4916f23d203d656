"""Writes: a write is one or more bidirectional streams, each of which starts at the last checkpoint."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from provgate_client.adapter.channel import GatewaySession
from provgate_client.adapter.conversion import to_progress
from provgate_client.adapter.messages import EntryKind, check_entries, requests_of
from provgate_client.adapter.progress import ProgressCallback, WriteLedger, WriteProgress
from provgate_client.errors import CallStatus, RetryableCallError
from provgate_runtime.counted import counted

logger = logging.getLogger(__name__)

E = TypeVar("E")


def write(session: GatewaySession, kind: EntryKind[E], entries: Iterable[E], progress: ProgressCallback | None) -> bool:
    """Writes `entries`, of any number. Every iteration over them must give the same entries.

    Returns:
        True when every entry is acked. False if the write failed and may be tried again, unless `raise_on_failure` is
        set.

    Raises:
        InvalidValueError: an entry is invalid; nothing was sent.
        CallError: the gateway refused an entry or the call. The same write would fail again.
        RetryableCallError: the write may be tried again, and `raise_on_failure` is set.
    """
    if check_entries(kind, entries) == 0:
        return True
    ledger, retry = WriteLedger(), session.retry()
    while True:
        try:
            with closing(_call(session, kind, islice(entries, ledger.start_call(), None))) as responses:
                for counts in responses:
                    if ledger.record(counts):
                        retry.progressed()
                        if progress is not None:
                            progress(kind.method, ledger.progress)
            return True
        except RetryableCallError as error:
            if retry.pause(error):
                continue
            if session.settings.raise_on_failure:
                raise
            fields = {"action": "write.fail", "method": kind.method, "reason": str(error)}
            logger.warning("%s may be tried again: %s", kind.method, error, extra=fields)
            return False


def _call(session: GatewaySession, kind: EntryKind[E], entries: Iterable[E]) -> Generator[WriteProgress, None, None]:
    """Sends entries in one call, and yields the counts of each response; ends when all entries are acked.

    Closing the generator cancels the call. When that returns, nothing iterates over `entries` any more.
    """
    settings = session.settings
    feed = RequestFeed(requests_of(kind, entries, settings.message_entries), settings.checkpoint_entries)
    call = session.call(kind.method, feed, settings.write_timeout_s)
    acked_count = 0
    try:
        for response in call:
            counts = to_progress(response.progress)
            acked_count = counts.acked_count
            feed.acked(acked_count)
            yield counts
    except grpc.RpcError as error:
        raise session.failure(error, kind.method) from error
    finally:
        # In this order: closing the feed ends the request stream, and the gateway must not take that for a half-close.
        call.cancel()
        feed.close()
    if feed.failure is not None:
        raise feed.failure
    if acked_count != feed.sent_count:
        sent = counted(feed.sent_count, "entry", "entries")
        message = f"{kind.method}: the call ended with {acked_count} of {sent} acked"
        raise RetryableCallError(message, CallStatus(grpc.StatusCode.OK))


class RequestFeed(Iterator[Message]):
    """The requests of one call, for gRPC, which takes them in a thread of its own.

    gRPC takes them as fast as the gateway's flow control allows, one message ahead at most. After every
    `checkpoint_count` entries the feed waits until all that it gave is acked. Without these pauses a busy call would
    have no checkpoint before its end.

    Attributes:
        sent_count: entries given so far.
        failure: the exception that the caller's own collection raised during iteration; the stream ends there.
    """

    def __init__(self, requests: Iterator[tuple[int, Message]], checkpoint_count: int) -> None:
        self.sent_count = 0
        self.failure: Exception | None = None
        self._requests = requests
        self._checkpoint_count = checkpoint_count
        self._checkpoint_sent_count = 0
        self._acked_count = 0
        self._closed = False
        # Held while a message is built, so that close() returns only when nothing iterates over the entries.
        self._condition = threading.Condition()

    def __next__(self) -> Message:
        with self._condition:
            self._condition.wait_for(self._may_continue)
            if self._closed:
                raise StopIteration
            try:
                count, request = next(self._requests)
            except StopIteration:
                raise
            except Exception as error:  # The caller's thread raises it.
                self.failure = error
                raise StopIteration from error
            self.sent_count += count
            return request

    def acked(self, count: int) -> None:
        """Records that `count` of the entries given are acked."""
        with self._condition:
            self._acked_count = count
            self._condition.notify_all()

    def close(self) -> None:
        """Ends the stream, after the message that is being built."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def _may_continue(self) -> bool:
        if self._acked_count == self.sent_count:
            self._checkpoint_sent_count = self.sent_count
        return self._closed or self.sent_count - self._checkpoint_sent_count < self._checkpoint_count
