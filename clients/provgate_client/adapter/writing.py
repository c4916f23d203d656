"""Writes: streams in both directions, repeated from the last checkpoint."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from itertools import islice
from typing import Any, TypeVar

import grpc

from provgate_client.adapter.conversion import to_progress
from provgate_client.adapter.entries import EntryKind
from provgate_client.adapter.feed import RequestFeed
from provgate_client.adapter.ledger import WriteLedger
from provgate_client.adapter.messages import check_entries, requests_of
from provgate_client.adapter.session import GatewaySession
from provgate_client.errors import CallStatus, RetryableCallError
from provgate_client.progress import ProgressCallback
from provgate_config.counted import counted

E = TypeVar("E")

logger = logging.getLogger(__name__)


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
