"""What the log has of a fault: that it begins and that it ends."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack
from tests.support.gateway_calls import connected
from tests.support.polling import eventually
from tests.support.programs import records_of, start_logging_json

pytestmark = pytest.mark.faults

CONNECTIONS = {"provgate-gateway publisher", "provgate-gateway replies"}


def connects(path: Path, state: str) -> list[dict[str, Any]]:
    """Returns what a log has of connections to the broker."""
    return [each for each in records_of(path) if each["action"] == "broker.connect" and each.get("state") == state]


def names(records: Iterable[dict[str, Any]]) -> set[str]:
    return {each["connection"] for each in records}


def test_a_broker_that_is_away_is_two_records_of_a_connection(small_stack: Stack, rabbitmq_node: RabbitMqNode) -> None:
    start_logging_json(small_stack)
    with connected(small_stack.address):
        pass
    (gateway,) = small_stack.gateways
    assert names(connects(gateway.log_path, "working")) >= CONNECTIONS
    rabbitmq_node.restart()
    eventually(
        lambda: names(each for each in connects(gateway.log_path, "working") if "after_s" in each) >= CONNECTIONS,
        "the connections of calls are made again",
        120,
    )
    for connection in CONNECTIONS:
        failures = [each for each in connects(gateway.log_path, "failing") if each["connection"] == connection]
        # The loss, and reasons that are new while the broker starts.
        assert 1 <= len(failures) <= 3
        assert all(each["level"] == "warning" and each["reason"] for each in failures)
