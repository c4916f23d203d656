"""The Prometheus rules of docs/alerts.yml ask for metrics that there are, and docs/operations.md explains each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import grpc
import yaml
from prometheus_client import CollectorRegistry

from provgate_gateway.metrics import GatewayMetrics
from provgate_runtime.watch.metric_set import Described
from provgate_workers.metrics import WorkerMetrics

DOCS = Path(__file__).resolve().parents[2] / "docs"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((DOCS / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]


def exported() -> dict[str, Described]:
    """What the programs export, by name."""
    every = [*GatewayMetrics(CollectorRegistry()).described, *WorkerMetrics(CollectorRegistry()).described]
    return {described.name: described for described in every}


def described_of(name: str) -> Described | None:
    found = exported()
    base = re.sub(r"_(bucket|count|sum)$", "", name)
    histogram = found.get(base)
    return histogram if histogram is not None and histogram.kind == "histogram" else found.get(name)


def test_rules_ask_for_metrics_and_labels_that_there_are() -> None:
    for rule in RULES:
        names = re.findall(r"\bprovgate_\w+", rule["expr"])
        assert names or rule["expr"].startswith("up{")
        labels = {"instance", "job", "le"}
        for name in names:
            described = described_of(name)
            assert described is not None, name
            assert (described.kind == "histogram") is name.endswith("_bucket")
            labels.update(described.labels)
        asked = {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", rule["expr"]) for label in group.split(",")}
        asked.update(re.findall(r"[{,]\s*(\w+)\s*=", rule["expr"]))
        asked.update(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert asked <= labels, rule["alert"]
        codes = re.findall(r'code=~"([^"]*)"', rule["expr"])
        assert {code for each in codes for code in each.split("|")} <= {code.name for code in grpc.StatusCode}


def test_rules_are_explained() -> None:
    lines = (DOCS / "operations.md").read_text(encoding="utf-8").splitlines()
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["expr"].count("(") == rule["expr"].count(")")
        (row,) = (line for line in lines if line.startswith(f"| `{rule['alert']}`"))
        assert all(cell.strip() for cell in row.strip("|").split("|"))
