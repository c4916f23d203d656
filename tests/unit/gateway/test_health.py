"""The conditions of /readyz, and the metrics of an inspection."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE, QueueState
from provgate_broker.topology.inspection import InspectedQueue, TopologyReport
from provgate_broker.topology.policy import Exchange, Queue, RangePolicy
from provgate_gateway.access.certificates import certificate_problem
from provgate_gateway.health.health import Readiness
from provgate_gateway.health.topology_monitor import some_of, topology_conditions
from provgate_gateway.metrics import queue_metrics
from provgate_runtime.watch.conditions import Condition

POLICY = RangePolicy.of(dict.fromkeys(Exchange, 2))
FIRST, SECOND, *_ = (queue.name for queue in POLICY.queues())


def report(
    changed: dict[str, InspectedQueue] | None = None,
    exchanges: dict[Exchange, str] | None = None,
    range_counts: dict[Exchange, int | None] | None = None,
) -> TopologyReport:
    """Returns an inspection in which only the given queues and exchanges are wrong."""

    def found(queue: Queue) -> InspectedQueue:
        return (changed or {}).get(queue.name, InspectedQueue(queue.name, QueueState(0, 1)))

    work = {queue: found(queue) for queue in POLICY.queues()}
    dead_letter_queues = {DEAD_LETTER_QUEUE: InspectedQueue(DEAD_LETTER_QUEUE, QueueState(7, 0))}
    return TopologyReport(work, dead_letter_queues, exchanges or {}, range_counts or {}, compared=False)


@pytest.mark.parametrize(
    ("inspected", "problems"),
    [
        (report(), {}),
        (report({FIRST: InspectedQueue(FIRST, None)}), {"topology": f"queue {FIRST} is missing"}),
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
def test_conditions_name_what_is_wrong(inspected: TopologyReport, problems: dict[str, str]) -> None:
    conditions = topology_conditions(inspected)
    assert [condition.name for condition in conditions] == ["topology", "consumers", "ranges"]
    assert {condition.name: condition.problem for condition in conditions if not condition.holds} == problems


def test_without_an_inspection_no_condition_holds() -> None:
    assert not any(condition.holds for condition in topology_conditions(None))
    assert [metric.samples for metric in queue_metrics(None)] == [[], [], []]


def test_some_texts_stand_for_many() -> None:
    assert some_of(["a", "b", "c"]) == "a, b, c"
    assert some_of("abcde", "; ") == "a; b; c and 2 more"


def test_depth_and_consumers_have_a_sample_for_each_range() -> None:
    metrics = queue_metrics(report({SECOND: InspectedQueue(SECOND, QueueState(5, 0))}))
    values = {(sample.name, *sample.labels.values()): sample.value for metric in metrics for sample in metric.samples}
    labels = ("content", "relation_add.content_in_revision", "0")
    assert SECOND == "relation_add.content_in_revision.0"
    assert values["provgate_gateway_queue_depth", *labels] == 5
    assert values["provgate_gateway_queue_consumers", *labels] == 0
    assert values["provgate_gateway_dead_letter_depth", DEAD_LETTER_QUEUE] == 7


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


def test_the_condition_of_a_source_replaces_one_that_was_set() -> None:
    readiness = Readiness()
    readiness.set("stopping")
    readiness.set("broker", "not connected yet")
    assert readiness.conditions() == [Condition("stopping"), Condition("broker", "not connected yet")]
    now = [Condition("broker")]
    readiness.add(lambda: now)
    readiness.add(lambda: [Condition("alarm", "memory")])
    assert readiness.conditions() == [Condition("stopping"), Condition("broker"), Condition("alarm", "memory")]
    now[0] = Condition("broker", "lost")
    readiness.set("stopping", "told to")
    assert readiness.conditions()[:2] == [Condition("stopping", "told to"), Condition("broker", "lost")]
