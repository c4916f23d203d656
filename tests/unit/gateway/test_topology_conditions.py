"""What an inspection means for whether a gateway is ready, and as metrics."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE, QueueState
from provgate_broker.topology.inspection import InspectedQueue, TopologyReport
from provgate_broker.topology.policy import Exchange, Queue, RangePolicy
from provgate_gateway.health.topology_monitor import certificate_problem, some_of, topology_conditions
from provgate_gateway.metrics import queue_metrics

POLICY = RangePolicy.of(dict.fromkeys(Exchange, 2))
FIRST, SECOND, *_ = (queue.name for queue in POLICY.queues())


def report(
    changed: dict[str, InspectedQueue] | None = None,
    exchanges: dict[Exchange, str] | None = None,
    range_counts: dict[Exchange, int | None] | None = None,
) -> TopologyReport:
    """Returns an inspection of queues that are all as they should be, but for some."""

    def found(queue: Queue) -> InspectedQueue:
        return (changed or {}).get(queue.name, InspectedQueue(queue.name, QueueState(0, 1)))

    work = {queue: found(queue) for queue in POLICY.queues()}
    aside = {DEAD_LETTER_QUEUE: InspectedQueue(DEAD_LETTER_QUEUE, QueueState(7, 0))}
    return TopologyReport(work, aside, exchanges or {}, range_counts or {}, compared=True)


@pytest.mark.parametrize(
    ("inspected", "problems"),
    [
        (report(), {}),
        (report({FIRST: InspectedQueue(FIRST, None)}), {"topology": f"queue {FIRST} is missing"}),
        (
            report({FIRST: InspectedQueue(FIRST, QueueState(0, 1), "another length")}),
            {"topology": f"queue {FIRST}: another length"},
        ),
        (
            report({name: InspectedQueue(name, QueueState(3, 0)) for name in (FIRST, SECOND)}),
            {"consumers": f"2 of 20 work queues have no consumer: {FIRST}, {SECOND}"},
        ),
        (report(exchanges={Exchange.ORIGIN: "missing"}), {"topology": "exchange origin: missing"}),
        (
            report(range_counts={Exchange.ORIGIN: None, Exchange.CONTENT: 1}),
            {
                "ranges": "origin: the broker has queues of more ranges than are configured;"
                " content: the broker has queues of only 1 range"
            },
        ),
    ],
)
def test_what_is_wrong_is_named(inspected: TopologyReport, problems: dict[str, str]) -> None:
    conditions = topology_conditions(inspected)
    assert [condition.name for condition in conditions] == ["topology", "consumers", "ranges"]
    assert {condition.name: condition.problem for condition in conditions if not condition.holds} == problems


def test_what_was_not_inspected_does_not_hold() -> None:
    assert not any(condition.holds for condition in topology_conditions(None))


def test_of_many_texts_some_are_told() -> None:
    assert some_of(["a", "b", "c"]) == "a, b, c"
    assert some_of("abcde", "; ") == "a; b; c and 2 more"


class _Once(Collector):
    def __init__(self, inspected: TopologyReport | None) -> None:
        self._inspected = inspected

    def collect(self) -> Any:
        return queue_metrics(self._inspected)


def test_depth_and_consumers_are_told_by_range() -> None:
    registry = CollectorRegistry()
    registry.register(_Once(report({SECOND: InspectedQueue(SECOND, QueueState(5, 0))})))
    labels = {"exchange": "content", "operation": "relation_add.content_in_revision", "range": "0"}
    assert SECOND == "relation_add.content_in_revision.0"
    assert registry.get_sample_value("provgate_gateway_queue_depth", labels) == 5
    assert registry.get_sample_value("provgate_gateway_queue_consumers", labels) == 0
    assert registry.get_sample_value("provgate_gateway_aside_depth", {"queue": DEAD_LETTER_QUEUE}) == 7


def test_without_an_inspection_no_depth_is_told() -> None:
    assert [metric.samples for metric in queue_metrics(None)] == [[], [], []]


def test_a_certificate_that_has_expired(tmp_path: Path) -> None:
    expiry = datetime(2030, 1, 2, 3, 4, tzinfo=UTC)
    file = tmp_path / "cert.pem"
    trustme.CA().issue_cert("localhost", not_after=expiry).cert_chain_pems[0].write_to_path(file)
    assert certificate_problem(str(file), expiry - timedelta(seconds=1)) is None
    assert certificate_problem(str(file), expiry) == f"{file} has expired at 2030-01-02 03:04 UTC"
    assert certificate_problem(None, expiry) is None
    assert (
        certificate_problem(str(tmp_path / "gone"), expiry)
        == f"{tmp_path}/gone cannot be read: No such file or directory"
    )
