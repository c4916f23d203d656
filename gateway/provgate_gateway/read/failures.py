"""What is logged of reads that fail."""

from __future__ import annotations

import logging
from typing import Final

from provgate_runtime.outage import Outage
from provgate_storage.errors import RetryableStorageError, SchemaMismatchError, StorageError, StorageTimeoutError

logger = logging.getLogger(__name__)

# While the storage is in trouble some reads may go well; health says more quickly that it is back.
_CALM_S: Final = 10.0


class ReadFailures:
    """Logs failures of reads: each of those that is a fault, and of the others that they begin and that they end.

    Belongs to one event loop.

    Args:
        kind: of the reads, for people.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._outage = Outage(logger, action="storage.read", calm_s=_CALM_S)

    def failed(self, error: StorageError) -> None:
        """Notes a read that failed."""
        # The storage works: it is the query that is too large for its limit.
        if isinstance(error, StorageTimeoutError):
            self._log("a %s read took longer than its limit: %s", error)
        elif isinstance(error, RetryableStorageError | SchemaMismatchError):
            self._outage.failed(f"a {self._kind} read fails", error, kind=self._kind)
        else:
            self._log("a %s read fails: %s", error)

    def succeeded(self) -> None:
        """Notes a read that went well."""
        self._outage.ended(f"{self._kind} reads go well again", kind=self._kind)

    def _log(self, text: str, error: StorageError) -> None:
        fields = {"action": "storage.read", "reason": str(error), "kind": self._kind}
        logger.warning(text, self._kind, error, extra=fields)
