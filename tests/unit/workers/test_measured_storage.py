"""Storage calls are counted by how they end, and timed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from provgate_storage.database.local import LocalStorage
from provgate_storage.errors import DataRefusedError, StorageConflictError, StorageUnavailableError
from provgate_storage.rows.rows import Row
from provgate_workers.metrics import MeasuredStorage, WorkerMetrics

ROWS: Sequence[Row] = [(b"\x00" * 20, None), (b"\x01" * 20, None)]


class Answering:
    """Answers every write alike."""

    def __init__(self, answer: bool | Exception) -> None:
        self._answer = answer

    def write_rows(self, name: str, rows: Sequence[Row]) -> bool:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (True, "committed"),
        (False, "trouble"),
        (StorageConflictError("deadlock"), "conflict"),
        (StorageUnavailableError("away"), "trouble"),
        (DataRefusedError("this id"), "refused"),
        (ZeroDivisionError(), "failed"),
    ],
    ids=str,
)
def test_a_call_is_counted_by_how_it_ends(answer: bool | Exception, outcome: str) -> None:
    registry = CollectorRegistry()
    told: list[tuple[str, float]] = []
    storage = MeasuredStorage(
        cast("LocalStorage", Answering(answer)), WorkerMetrics(registry), lambda name, s: told.append((name, s))
    )
    if isinstance(answer, Exception):
        with pytest.raises(type(answer)):
            storage.write_rows("content_in_revision", ROWS)
    else:
        assert storage.write_rows("content_in_revision", ROWS) is answer
    labels = {"operation": "relation_add.content_in_revision"}
    outcomes = {
        sample.labels["outcome"]: sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "provgate_workers_storage_calls_total" and sample.labels.items() >= labels.items()
    }
    assert {name for name, count in outcomes.items() if count} == {outcome}
    committed = outcome == "committed"
    assert registry.get_sample_value("provgate_workers_rows_stored_total", labels) == (2 if committed else 0)
    assert registry.get_sample_value("provgate_workers_commit_seconds_count", labels) == (1 if committed else 0)
    assert [name for name, _ in told] == ["relation_add.content_in_revision"]
