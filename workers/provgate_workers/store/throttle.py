"""Slows down one operation whose batches fail, so that the others go on."""

from __future__ import annotations

import logging
import random
from typing import Final

from provgate_broker.topology.policy import Operation
from provgate_runtime.outage import Outage
from provgate_storage.errors import RetryableStorageError, StorageTimeoutError

logger = logging.getLogger(__name__)

_PAUSE_FIRST_S: Final = 0.2
_PAUSE_MAX_S: Final = 5.0
_PAUSE_DOUBLINGS: Final = 5

# After a timeout, each batch that is stored lets the next one grow by this part of a full one.
_GROWTH: Final = 10


class Throttle:
    """Slows down one operation: a failure pauses it, and a timeout also halves its batches. Belongs to one event loop.

    Args:
        operation: the operation.
        batch_size: the rows of a full batch.

    Attributes:
        row_limit: the rows of the next batch; 1 is a package alone.
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
        """Notes that a batch of `row_count` rows failed. Returns the seconds to pause before `resume` is called."""
        text = f"the storage is in trouble, packages of {self._operation.label} wait"
        self._outage.failed(text, trouble, operation=self._operation.label)
        if isinstance(trouble, StorageTimeoutError):
            # Half of the limit at most: the last package of a batch may exceed the limit.
            self.row_limit = max(1, min(self.row_limit, row_count) // 2)
        self.stalled = self.paused = True
        pause_s = min(_PAUSE_MAX_S, _PAUSE_FIRST_S * 2.0 ** min(self._failure_count, _PAUSE_DOUBLINGS))
        self._failure_count += 1
        return pause_s * random.uniform(0.5, 1.0)

    def resume(self, *, waiting: bool) -> None:
        """Ends a pause. No trial is needed if nothing waits, or if a batch was stored since."""
        self.paused = False
        self.stalled = self.stalled and waiting

    def stored(self) -> None:
        """Notes that a batch is stored."""
        self.row_limit = min(self._batch_size, self.row_limit + max(1, self._batch_size // _GROWTH))
        self.stalled = self.paused = False
        self._failure_count = 0
        self._outage.ended(f"packages of {self._operation.label} are stored again", operation=self._operation.label)
