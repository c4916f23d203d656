"""A virtual host and a database of private servers, which a test may break, and a stack on them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from provgate_stack.processes.directory import StackDirectory
from provgate_stack.servers.mongodb import MongoDbServer
from provgate_stack.servers.postgresql import PostgreSqlCluster, postgresql_storage
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack, StorageConfig
from tests.support.fix_stack import FEW_RANGES
from tests.support.loss_checker import Checker


@pytest.fixture
def checker() -> Checker:
    """The checker of one test."""
    return Checker()


@pytest.fixture
def broker_url(rabbitmq_node: RabbitMqNode) -> Iterator[str]:
    """The URL of a fresh virtual host of the private node."""
    name = f"faults-{secrets.token_hex(4)}"
    rabbitmq_node.add_vhost(name)
    yield rabbitmq_node.url(name)
    rabbitmq_node.delete_vhost(name)


@pytest.fixture
def database_dsn(postgres_cluster: PostgreSqlCluster) -> Iterator[str]:
    """The DSN of a fresh database of the private cluster."""
    name = f"faults_{secrets.token_hex(4)}"
    yield postgres_cluster.create_database(name)
    postgres_cluster.drop_database(name)


@pytest.fixture
def storage_config(database_dsn: str) -> StorageConfig:
    """The storage configuration of that database."""
    return postgresql_storage(database_dsn)


@pytest.fixture
def small_stack(broker_url: str, storage_config: StorageConfig, stack_directory: StackDirectory) -> Iterator[Stack]:
    """A stack with few queues on the private servers, of which nothing is started yet."""
    name = f"faults-{secrets.token_hex(4)}"
    stack = Stack(broker_url, storage_config, stack_directory, {"rabbitmq": {"ranges": FEW_RANGES}}, name)
    yield stack
    stack.kill()


@pytest.fixture
def mongodb_name() -> str:
    """The name of a fresh database of the private MongoDB server, which goes with the tests' directory."""
    return f"faults_{secrets.token_hex(4)}"


@pytest.fixture
def mongodb_config(mongodb_server: MongoDbServer, mongodb_name: str) -> StorageConfig:
    """The storage configuration of that database."""
    return mongodb_server.storage_config(mongodb_name)


@pytest.fixture
def small_mongodb_stack(
    broker_url: str, mongodb_config: StorageConfig, stack_directory: StackDirectory
) -> Iterator[Stack]:
    """As `small_stack`, on MongoDB."""
    name = f"faults-{secrets.token_hex(4)}"
    stack = Stack(broker_url, mongodb_config, stack_directory, {"rabbitmq": {"ranges": FEW_RANGES}}, name)
    yield stack
    stack.kill()
