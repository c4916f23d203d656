"""A storage whose calls are counted and timed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from provgate_broker.topology import OPERATIONS
from provgate_storage.errors import (
    DataRefusedError,
    InvalidValueError,
    RetryableStorageError,
    StorageConflictError,
)
from provgate_storage.local import LocalStorage
from provgate_storage.rows import Row
from provgate_telemetry.statsd import Durations
from provgate_workers.batch import storage_name_of
from provgate_workers.metrics import CallOutcome, WorkerMetrics

_OPERATIONS: Final = {storage_name_of(operation): operation for operation in OPERATIONS}


class MeasuredStorage:
    """Writes rows to a storage, and tells how that went. Thread-safe as the storage is.

    Args:
        storage: an open storage.
        metrics: what counts.
        durations: is told how long each call took, however it ended.
    """

    def __init__(self, storage: LocalStorage, metrics: WorkerMetrics, durations: Durations) -> None:
        self._storage = storage
        self._durations = durations
        self._of_names = {
            name: (metrics.operations[operation], operation.label) for name, operation in _OPERATIONS.items()
        }

    def write_rows(self, name: str, rows: Sequence[Row]) -> bool:
        """Writes as the storage does."""
        of_operation, label = self._of_names[name]
        outcome = CallOutcome.FAILED
        began_at = time.perf_counter()
        try:
            stored = self._storage.write_rows(name, rows)
            outcome = CallOutcome.COMMITTED if stored else CallOutcome.TROUBLE
        except Exception as error:
            outcome = _outcome_of(error)
            raise
        else:
            return stored
        finally:
            duration_s = time.perf_counter() - began_at
            of_operation.calls[outcome].inc()
            if outcome is CallOutcome.COMMITTED:
                of_operation.rows_stored.inc(len(rows))
                of_operation.call_duration.observe(duration_s)
            self._durations(label, duration_s)

    def probe(self) -> None:
        """Probes as the storage does."""
        self._storage.probe()


def _outcome_of(error: Exception) -> CallOutcome:
    if isinstance(error, StorageConflictError):
        return CallOutcome.CONFLICT
    if isinstance(error, RetryableStorageError):
        return CallOutcome.TROUBLE
    if isinstance(error, DataRefusedError | InvalidValueError):
        return CallOutcome.REFUSED
    return CallOutcome.FAILED
