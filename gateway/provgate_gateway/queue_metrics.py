"""Depth and consumers of the broker's queues, as Prometheus has them."""

from __future__ import annotations

from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric

from provgate_broker.inspection import TopologyReport

_LABELS: Final = ("exchange", "operation", "range")


def queue_metrics(report: TopologyReport | None) -> list[Metric]:
    """Returns the gauges of an inspection; empty ones where there was none."""
    depth = GaugeMetricFamily("provgate_gateway_queue_depth", "Packages that wait in a work queue.", labels=_LABELS)
    consumers = GaugeMetricFamily("provgate_gateway_queue_consumers", "Consumers of a work queue.", labels=_LABELS)
    aside = GaugeMetricFamily(
        "provgate_gateway_aside_depth", "Packages in the dead-letter and the quarantine queue.", labels=("queue",)
    )
    if report is not None:
        for queue, found in report.work.items():
            if found.state is not None:
                labels = (queue.exchange.value, queue.operation.label, f"{queue.range_number:x}")
                depth.add_metric(labels, found.state.message_count)
                consumers.add_metric(labels, found.state.consumer_count)
        for found in report.aside.values():
            if found.state is not None:
                aside.add_metric((found.name,), found.state.message_count)
    return [depth, consumers, aside]
