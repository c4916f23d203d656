"""What programs say of a local storage that they cannot work with."""

from __future__ import annotations

from typing import Any

import pytest

from provgate_runtime import ConfigurationError
from provgate_storage.registry import local_storage


@pytest.mark.parametrize(
    ("storage_config", "text"),
    [
        ({}, "provenance.rabbitmq.storage_config.cls: missing"),
        ({"cls": "rabbitmq", "url": "amqp://"}, "provenance.rabbitmq.storage_config.cls: RabbitMQ is no storage: set"),
        ({"cls": "nosql"}, "provenance.rabbitmq.storage_config.cls: no storage is called 'nosql'"),
        ({"cls": "grpc", "url": "localhost:1"}, "provenance.rabbitmq.storage_config.cls: grpc holds no data itself"),
        ({"cls": "postgresql", "db": "", "dsn": ""}, "provenance.rabbitmq.storage_config"),
    ],
)
def test_a_storage_that_cannot_be_used(storage_config: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        local_storage(storage_config, "provenance.rabbitmq", write_connections=1)
    assert str(caught.value).startswith(text)
