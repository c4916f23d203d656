"""docs/metrics.md lists all metrics, and their names follow the conventions."""

from __future__ import annotations

from provgate_operations.metrics_reference import gateway_metrics, with_tables, worker_metrics
from tests.unit.test_import_directions import CLONE

LABELS = {"method", "code", "exchange", "operation", "range", "queue", "outcome", "reason", "kind", "connection"}


def test_the_page_is_current() -> None:
    page = (CLONE / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert with_tables(page) == page, "run `.venv/bin/python -m provgate_operations.metrics_reference docs/metrics.md`"
    for metric in (*gateway_metrics(), *worker_metrics()):
        assert f"| `{metric.name}` |" in page


def test_names_and_labels_follow_the_conventions() -> None:
    for metric in (*gateway_metrics(), *worker_metrics()):
        assert metric.name.startswith(("provgate_gateway_", "provgate_workers_"))
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert set(metric.labels) <= LABELS
