"""The metrics of the workers, and a storage whose calls are counted and timed.

Counts go up for each delivery, batch, storage call and reply, never for each row. Each process has its own metrics; the
program shows their sums (`program/shared_metrics.py`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from provgate_broker.dead_letters.messages import DeadLetterReason
from provgate_broker.topology.policy import OPERATIONS, Exchange
from provgate_runtime.watch.metric_set import COUNT_BUCKETS, DURATION_BUCKETS_S, SIZE_BUCKETS_BYTES, MetricSet
from provgate_runtime.watch.statsd import Durations
from provgate_storage.database.local import LocalStorage
from provgate_storage.errors import DataRefusedError, InvalidValueError, RetryableStorageError, StorageConflictError
from provgate_storage.rows.rows import Row
from provgate_workers.store.batch import storage_name_of

PREFIX: Final = "provgate_workers"


class CallOutcome(StrEnum):
    """How a storage call ended.

    Attributes:
        COMMITTED: the rows are stored.
        CONFLICT: another writer was in the way; the call is repeated at once.
        TROUBLE: the storage cannot be written to for now.
        REFUSED: the storage refuses some of the rows; their package is searched for, or becomes a dead letter.
        FAILED: an unknown error; the call is repeated some times.
    """

    COMMITTED = "committed"
    CONFLICT = "conflict"
    TROUBLE = "trouble"
    REFUSED = "refused"
    FAILED = "failed"


class ReplyKind(StrEnum):
    """What a reply says: all rows are stored, or the package is refused."""

    ACK = "ack"
    NACK = "nack"


@dataclass(frozen=True, slots=True)
class OperationMetrics:
    """The metrics of one operation. Thread-safe.

    Attributes:
        deliveries: packages that the broker delivered.
        redeliveries: of these, those that it had delivered before, packages that this process deferred left out.
        deferred: of these, those that are requeued when there is memory for them.
        rows_stored: the rows of committed storage calls.
        batch_rows, batch_bytes: of the packages of each batch.
        call_duration: of committed storage calls.
        calls: the storage calls by their outcome.
    """

    deliveries: Counter
    redeliveries: Counter
    deferred: Counter
    rows_stored: Counter
    batch_rows: Histogram
    batch_bytes: Histogram
    call_duration: Histogram
    calls: dict[CallOutcome, Counter]


class WorkerMetrics:
    """The metrics of one process. Thread-safe.

    Args:
        registry: where they are shown.

    Attributes:
        operations: those of each operation.
        dead_letters: packages that became dead letters, by reason.
        quarantined: packages that were moved to quarantine.
        replies: the replies of each kind.
        replies_dropped: replies that were lost because too many waited for a blocked broker.
        stray_rows: rows that came for another range than their own, by exchange.
        described: all of them, for the reference.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        made = MetricSet(PREFIX, registry)
        label = ("operation",)
        deliveries = made.counter("deliveries", "Packages that the broker delivered.", label)
        redeliveries = made.counter(
            "redeliveries", "Deliveries of packages that were delivered before, deferred ones left out.", label
        )
        deferred = made.counter("deferred", "Deliveries that are requeued when there is memory for them.", label)
        rows_stored = made.counter("rows_stored", "Rows of storage calls that were committed.", label)
        batch_rows = made.histogram("batch_rows", "Rows of each batch.", COUNT_BUCKETS, label)
        batch_bytes = made.histogram("batch_bytes", "Size of the bodies of each batch.", SIZE_BUCKETS_BYTES, label)
        call_duration = made.histogram(
            "commit_seconds", "From the start of a storage call to its commit.", DURATION_BUCKETS_S, label
        )
        calls = made.counter(
            "storage_calls", f"Storage calls by how they ended: {', '.join(CallOutcome)}.", ("operation", "outcome")
        )
        dead_letters = made.counter("dead_letters", "Packages that became dead letters.", ("reason",))
        self.quarantined = made.counter("quarantined", "Packages that were moved to quarantine.")
        replies = made.counter("replies", "Replies of each kind: ack or nack.", ("kind",))
        self.replies_dropped = made.counter("replies_dropped", "Replies lost: too many waited for a blocked broker.")
        stray_rows = made.counter("stray_rows", "Rows that came for another range than their own.", ("exchange",))
        connected = made.gauge(
            "connected_processes", "Processes that have the connection: deliveries, or replies.", ("connection",)
        )
        self._in_hand_bytes = made.gauge("in_hand_bytes", "Bytes of packages in hand.")
        self._in_hand_bound_bytes = made.gauge("in_hand_bound_bytes", "The most bytes that may be in hand.")
        self._troubled = made.gauge("storage_troubled_processes", "Processes that do not write to the storage for now.")
        self._stalled = made.gauge("stalled_operations", "Operations whose writes stall, of each process.")
        self.described = made.described
        # Made at once, so that each is there, and 0, before anything has happened.
        self.operations = {
            operation: OperationMetrics(
                deliveries=deliveries.labels(operation.label),
                redeliveries=redeliveries.labels(operation.label),
                deferred=deferred.labels(operation.label),
                rows_stored=rows_stored.labels(operation.label),
                batch_rows=batch_rows.labels(operation.label),
                batch_bytes=batch_bytes.labels(operation.label),
                call_duration=call_duration.labels(operation.label),
                calls={outcome: calls.labels(operation.label, outcome.value) for outcome in CallOutcome},
            )
            for operation in OPERATIONS
        }
        self.dead_letters = {reason: dead_letters.labels(reason.value) for reason in DeadLetterReason}
        self.replies = {kind: replies.labels(kind.value) for kind in ReplyKind}
        self.stray_rows = {exchange: stray_rows.labels(exchange.value) for exchange in Exchange}
        self._connected = [connected.labels(name) for name in ("deliveries", "replies")]

    def show(
        self,
        *,
        delivering: bool,
        replying: bool,
        writing: bool,
        stalled_count: int,
        in_hand_bytes: int,
        bound_bytes: int,
    ) -> None:
        """Sets the gauges: both connections, the state of the storage, and the memory in hand."""
        for gauge, connected in zip(self._connected, (delivering, replying), strict=True):
            gauge.set(connected)
        self._troubled.set(not writing)
        self._stalled.set(stalled_count)
        self._in_hand_bytes.set(in_hand_bytes)
        self._in_hand_bound_bytes.set(bound_bytes)


class ProgramMetrics:
    """The metrics of the program around the processes. Thread-safe.

    Args:
        registry: where they are shown.

    Attributes:
        processes: processes that run.
        restarts: processes that ended by themselves or were killed, and were started again.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        made = MetricSet(PREFIX, registry)
        self.processes: Gauge = made.gauge("processes", "Processes that run.")
        self.restarts: Counter = made.counter("process_restarts", "Processes that ended and were started again.")
        self.described = made.described


class MeasuredStorage:
    """Writes rows to a storage, and counts and times the calls. Thread-safe if the storage is.

    Args:
        storage: an open storage.
        metrics: counts the calls.
        durations: called with the duration of each call, however it ended.
    """

    def __init__(self, storage: LocalStorage, metrics: WorkerMetrics, durations: Durations) -> None:
        self._storage = storage
        self._durations = durations
        self._operations = {
            storage_name_of(operation): (operation.label, metrics.operations[operation]) for operation in OPERATIONS
        }

    def write_rows(self, name: str, rows: Sequence[Row]) -> bool:
        """Writes as the storage does."""
        label, counted = self._operations[name]
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
            counted.calls[outcome].inc()
            if outcome is CallOutcome.COMMITTED:
                counted.rows_stored.inc(len(rows))
                counted.call_duration.observe(duration_s)
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
