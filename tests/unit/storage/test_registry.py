"""Storages by name, and the local storage of a configuration."""

from __future__ import annotations

from typing import Any

import pytest

from provgate_runtime import ConfigurationError
from provgate_storage import ProvenanceStorageInterface, get_provenance_storage
from provgate_storage.postgresql import ProvenanceStoragePostgreSql
from provgate_storage.registry import UnknownStorageError, local_storage


@pytest.mark.parametrize("name", ["postgresql", "local"])
def test_the_database_has_two_names(name: str) -> None:
    storage = get_provenance_storage(name, db="host=localhost")
    assert isinstance(storage, ProvenanceStoragePostgreSql)
    assert isinstance(storage, ProvenanceStorageInterface)


def test_an_unknown_name_is_reported_with_the_known_ones() -> None:
    with pytest.raises(UnknownStorageError, match=r"no storage is called 'postgres'; there are grpc, .*postgresql"):
        get_provenance_storage("postgres")


def test_a_configuration_for_rabbitmq_learns_what_to_use_instead() -> None:
    with pytest.raises(UnknownStorageError, match=r"provenance\.storage to \{cls: grpc, url: HOST:PORT\}"):
        get_provenance_storage("rabbitmq", url="amqp://localhost")


@pytest.mark.parametrize(
    ("storage_config", "text"),
    [
        ({}, "storage_config.cls: missing"),
        ({"cls": "rabbitmq", "url": "amqp://"}, "storage_config.cls: RabbitMQ is no storage: set"),
        ({"cls": "nosql"}, "storage_config.cls: no storage is called 'nosql'"),
        ({"cls": "grpc", "url": "localhost:1"}, "storage_config.cls: grpc is not a `LocalStorage`: name the database"),
        ({"cls": "postgresql", "db": "", "dsn": ""}, "storage_config.dsn: Object contains unknown field `dsn`"),
    ],
)
def test_an_unusable_local_storage_is_reported_with_its_path(storage_config: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        local_storage(storage_config, "provenance.rabbitmq", write_connections=1)
    assert str(caught.value).startswith(f"provenance.rabbitmq.{text}")
