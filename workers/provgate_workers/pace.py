"""How fast the packages of one operation are stored: what a batch holds at most, and when the next one may start."""

from __future__ import annotations

import logging
import random
from typing import Final

from provgate_broker.topology import Operation
from provgate_config.outage import Outage
from provgate_storage.errors import (
    RetryableStorageError,
    StorageConflictError,
    StorageForbiddenError,
    StorageTimeoutError,
)

logger = logging.getLogger(__name__)

_PAUSE_FIRST_S: Final = 0.2
_PAUSE_MAX_S: Final = 5.0
_PAUSE_DOUBLINGS: Final = 5

# After a time limit passed, batches grow again by this part of a full one with each that is stored.
_GROWTH: Final = 10


def is_of_operation(trouble: RetryableStorageError | None) -> bool:
    """Returns whether a failure says something of one operation: others may be stored meanwhile.

    A lock that is not granted, conflicts without end, a time limit, or a missing right: the storage answered.
    """
    return isinstance(trouble, StorageConflictError | StorageForbiddenError | StorageTimeoutError)


class OperationPace:
    """Slows down an operation whose batches fail: it pauses, and after a time limit it takes half as many rows.

    Belongs to one event loop.

    Args:
        operation: the operation.
        batch_size: how many rows make a batch full.

    Attributes:
        row_limit: how many rows the next batch takes; 1 is a package alone.
        stalled: whether the last batch failed. The next one is a trial.
        paused: whether it is too early for a trial.
    """

    def __init__(self, operation: Operation, batch_size: int) -> None:
        self.row_limit = batch_size
        self.stalled = False
        self.paused = False
        self._operation = operation
        self._batch_size = batch_size
        self._failure_count = 0
        self._outage = Outage(logger, action="storage.stall")

    def failed(self, trouble: RetryableStorageError, row_count: int) -> float:
        """Notes that a batch of so many rows failed. Returns how long to pause before `resume` is called."""
        text = f"the storage is in trouble, packages of {self._operation.label} wait"
        self._outage.failed(text, trouble, operation=self._operation.label)
        if isinstance(trouble, StorageTimeoutError):
            # Of the limit too: a batch holds more where its last package does.
            self.row_limit = max(1, min(self.row_limit, row_count) // 2)
        self.stalled = self.paused = True
        pause_s = min(_PAUSE_MAX_S, _PAUSE_FIRST_S * 2.0 ** min(self._failure_count, _PAUSE_DOUBLINGS))
        self._failure_count += 1
        return pause_s * random.uniform(0.5, 1.0)

    def resume(self, *, waiting: bool) -> None:
        """Ends a pause. What comes next is no trial where nothing waits to be tried, or something was stored since."""
        self.paused = False
        self.stalled = self.stalled and waiting

    def stored(self) -> None:
        """Notes that a batch is stored."""
        self.row_limit = min(self._batch_size, self.row_limit + max(1, self._batch_size // _GROWTH))
        self.stalled = self.paused = False
        self._failure_count = 0
        self._outage.ended(f"packages of {self._operation.label} are stored again", operation=self._operation.label)
