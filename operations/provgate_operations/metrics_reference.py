"""The tables of docs/metrics.md, made from the metrics: `python -m provgate_operations.metrics_reference FILE`."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from provgate_gateway.metrics import GatewayMetrics, queue_metrics
from provgate_runtime.watch.metric_set import Described
from provgate_workers.metrics import ProgramMetrics, WorkerMetrics

_TABLE: Final = re.compile(r"(<!-- metrics of the (\w+) -->\n)(?:\|.*\n)*")


def gateway_metrics() -> list[Described]:
    """Returns all metrics of the gateway."""
    inspected = [
        # The labels of a family have no public name.
        Described(family.name, "gauge", tuple(getattr(family, "_labelnames", ())), family.documentation)
        for family in queue_metrics(None)
    ]
    return [*GatewayMetrics(CollectorRegistry()).described, *inspected]


def worker_metrics() -> list[Described]:
    """Returns all metrics of a worker program."""
    return [*WorkerMetrics(CollectorRegistry()).described, *ProgramMetrics(CollectorRegistry()).described]


def with_tables(document: str) -> str:
    """Returns a document with current tables below its marks."""
    tables = {"gateway": _table(gateway_metrics()), "workers": _table(worker_metrics())}
    return _TABLE.sub(lambda found: found[1] + tables[found[2]], document)


def _table(metrics: Sequence[Described]) -> str:
    rows = (f"| `{each.name}` | {each.kind} | {', '.join(each.labels)} | {each.text} |\n" for each in metrics)
    return "| metric | kind | labels | |\n|---|---|---|---|\n" + "".join(rows)


def main() -> None:
    """Updates the tables of a file."""
    path = Path(sys.argv[1])
    path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
