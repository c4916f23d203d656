"""Logs reads that fail."""

from __future__ import annotations

import logging
from typing import Final

from provgate_runtime.outage import Outage
from provgate_storage.errors import RetryableStorageError, SchemaMismatchError, StorageError, StorageTimeoutError

logger = logging.getLogger(__name__)

# During an outage of the storage some reads may succeed; health reports sooner that it is back.
_CALM_S: Final = 10.0


class ReadFailures:
    """Logs each failure of a query itself, and the begin and end of an outage of the storage.

    Belongs to one event loop.

    Args:
        kind: of the reads, for messages.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._outage = Outage(logger, action="storage.read", calm_s=_CALM_S)

    def failed(self, error: StorageError) -> None:
        """Notes a read that failed."""
        # The storage works: the query is too large for its time limit.
        if isinstance(error, StorageTimeoutError):
            self._log("a %s read took longer than its limit: %s", error)
        elif isinstance(error, RetryableStorageError | SchemaMismatchError):
            self._outage.failed(f"a {self._kind} read fails", error, kind=self._kind)
        else:
            self._log("a %s read fails: %s", error)

    def succeeded(self) -> None:
        """Notes a read that succeeded."""
        self._outage.ended(f"{self._kind} reads go well again", kind=self._kind)

    def _log(self, text: str, error: StorageError) -> None:
        fields = {"action": "storage.read", "reason": str(error), "kind": self._kind}
        logger.warning(text, self._kind, error, extra=fields)
