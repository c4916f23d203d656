"""Storages by name."""

from __future__ import annotations

import pytest

from provgate_runtime import ConfigurationError
from provgate_storage import ProvenanceStorageInterface, get_provenance_storage
from provgate_storage.postgresql import ProvenanceStoragePostgreSql
from provgate_storage.registry import UnknownStorageError


@pytest.mark.parametrize("name", ["postgresql", "local"])
def test_the_database_goes_by_two_names(name: str) -> None:
    storage = get_provenance_storage(name, db="host=localhost")
    assert isinstance(storage, ProvenanceStoragePostgreSql)
    assert isinstance(storage, ProvenanceStorageInterface)


def test_an_unknown_name_is_told_with_those_that_there_are() -> None:
    with pytest.raises(UnknownStorageError, match=r"no storage is called 'postgres'; there are grpc, .*postgresql"):
        get_provenance_storage("postgres")


def test_wrong_arguments_are_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="unknown field `dsn`"):
        get_provenance_storage("postgresql", db="", dsn="")


def test_a_configuration_for_rabbitmq_is_told_what_to_use_instead() -> None:
    with pytest.raises(UnknownStorageError, match=r"provenance\.storage to \{cls: grpc, url: HOST:PORT\}"):
        get_provenance_storage("rabbitmq", url="amqp://localhost")
