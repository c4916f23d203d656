"""What is logged of reads that fail."""

from __future__ import annotations

import logging
from typing import Final

from provgate_config.outage import Outage
from provgate_storage.errors import RetryableStorageError, StorageError

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
        if isinstance(error, RetryableStorageError):
            self._outage.failed(f"a {self._kind} read fails", error, kind=self._kind)
        else:
            fields = {"reason": str(error), "kind": self._kind}
            logger.warning("a %s read fails: %s", self._kind, error, extra={"action": "storage.read", **fields})

    def succeeded(self) -> None:
        """Notes a read that went well."""
        self._outage.ended(f"{self._kind} reads go well again", kind=self._kind)
