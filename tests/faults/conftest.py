"""Systems on private servers, which a test may break."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from provgate_stack.processes.directory import StackDirectory
from provgate_stack.processes.process import LOOPBACK
from provgate_stack.servers.mongodb import MongoDbServer
from provgate_stack.servers.postgresql import PostgreSqlCluster
from provgate_stack.servers.rabbitmq import RabbitMqNode
from tests.faults.system import System, postgresql_system_on, system_on
from tests.support.link import Link
from tests.support.packages import AmqpSender
from tests.support.scripted_workers import ScriptedWorkers, set_up


@pytest.fixture
def system(
    request: pytest.FixtureRequest,
    rabbitmq_node: RabbitMqNode,
    postgres_cluster: PostgreSqlCluster,
    stack_directory: StackDirectory,
) -> Iterator[System]:
    """A system on PostgreSQL, of which nothing is started yet. An indirect parameter holds settings of `rabbitmq`."""
    settings = getattr(request, "param", {})
    with postgresql_system_on(rabbitmq_node, postgres_cluster, stack_directory, **settings) as system:
        yield system


@pytest.fixture(scope="module")
def shared_system(
    rabbitmq_node: RabbitMqNode, postgres_cluster: PostgreSqlCluster, stack_directory: StackDirectory
) -> Iterator[System]:
    """A system on PostgreSQL for the tests of a module. They start its programs, and leave them whole."""
    with postgresql_system_on(rabbitmq_node, postgres_cluster, stack_directory) as system:
        yield system


@pytest.fixture
def linked_system(
    rabbitmq_node: RabbitMqNode, postgres_cluster: PostgreSqlCluster, stack_directory: StackDirectory
) -> Iterator[tuple[System, Link]]:
    """A system on PostgreSQL that reaches the broker over a link, and the link."""
    with (
        Link(LOOPBACK, rabbitmq_node.port) as link,
        postgresql_system_on(rabbitmq_node, postgres_cluster, stack_directory, link) as system,
    ):
        yield system, link


@pytest.fixture(scope="session")
def scripted_system(
    rabbitmq_node: RabbitMqNode, postgres_cluster: PostgreSqlCluster, stack_directory: StackDirectory
) -> Iterator[System]:
    """A system of the default ranges for gateways in front of scripted workers. Its set-up takes some seconds."""
    with postgresql_system_on(rabbitmq_node, postgres_cluster, stack_directory, ranges={}) as system:
        set_up(system.url, system.storage_config)
        yield system


@pytest.fixture(scope="module")
def module_scripted_workers(scripted_system: System) -> Iterator[ScriptedWorkers]:
    """Scripted workers of `scripted_system`; the fixture `scripted_workers` gives them to a test."""
    with ScriptedWorkers(scripted_system.url) as workers:
        yield workers


@pytest.fixture
def sender(system: System) -> Iterator[AmqpSender]:
    """A sender past the gateway."""
    with AmqpSender(system.url) as sender:
        yield sender


@pytest.fixture
def mongodb_system(
    rabbitmq_node: RabbitMqNode, mongodb_server: MongoDbServer, stack_directory: StackDirectory
) -> Iterator[System]:
    """A system on MongoDB, of which nothing is started yet."""
    storage_config = mongodb_server.storage_config(f"faults_{secrets.token_hex(4)}")
    with system_on(rabbitmq_node, storage_config, stack_directory) as system:
        yield system
