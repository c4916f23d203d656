"""What queues are declared as."""

from __future__ import annotations

import pytest

from provgate_broker.settings import RabbitMqSettings
from provgate_broker.topology.declaration import queue_arguments
from provgate_runtime import ConfigurationError
from provgate_runtime.settings import convert


def test_queues_are_quorum_queues_and_nothing_else_can_be_asked_for() -> None:
    assert queue_arguments(RabbitMqSettings(), (3, 10, 8)) == {
        "x-queue-type": "quorum",
        "x-overflow": "reject-publish",
        "x-max-length-bytes": 1024**3,
        "x-single-active-consumer": True,
    }
    with pytest.raises(ConfigurationError, match="queue_type"):
        convert({"queue_type": "classic"}, RabbitMqSettings, "provenance.rabbitmq")
