"""Real servers: one of each kind a session, a fresh virtual host and database a test.

PROVGATE_AMQP_URL, PROVGATE_POSTGRES_DSN and PROVGATE_MONGODB_URL name servers to use instead. Tests that stop a
server, or inspect it, use a private one even so.
"""

from __future__ import annotations

import atexit
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from provgate_stack.processes.directory import StackDirectory
from provgate_stack.servers.mongodb import MongoDbServer
from provgate_stack.servers.postgresql import PostgreSqlCluster
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.servers.selection import ExistingMongoDb, ExistingPostgreSql, ExistingRabbitMq

CLONE = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="session")
def stack_directory() -> Iterator[StackDirectory]:
    """The directory of all programs that the tests start; at the end nothing of it is left."""
    directory = StackDirectory.claim_new(CLONE / ".stack", "tests")
    # A second Ctrl-C ends the teardown of fixtures, but not this.
    atexit.register(directory.remove)
    yield directory
    directory.remove()


@pytest.fixture(scope="session")
def rabbitmq_node(stack_directory: StackDirectory) -> Iterator[RabbitMqNode]:
    """A private RabbitMQ node that runs. A test that stops it leaves it running."""
    node = RabbitMqNode(stack_directory)
    node.start()
    yield node
    node.kill()


@pytest.fixture(scope="session")
def postgres_cluster(stack_directory: StackDirectory) -> Iterator[PostgreSqlCluster]:
    """A private PostgreSQL cluster that runs. A test that stops it leaves it running."""
    cluster = PostgreSqlCluster(stack_directory)
    cluster.start()
    yield cluster
    cluster.kill()


@pytest.fixture(scope="session")
def mongodb_server(stack_directory: StackDirectory) -> Iterator[MongoDbServer]:
    """A private MongoDB server that runs. A test that stops it leaves it running."""
    server = MongoDbServer(stack_directory)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def amqp_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The AMQP URL of a fresh virtual host, deleted afterwards; the URL of the existing broker if there is one."""
    with _fresh_vhost(lambda: request.getfixturevalue("rabbitmq_node")) as url:
        yield url


@pytest.fixture(scope="module")
def module_amqp_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """As `amqp_url`, for all tests of a module."""
    with _fresh_vhost(lambda: request.getfixturevalue("rabbitmq_node")) as url:
        yield url


@pytest.fixture
def postgres_dsn(request: pytest.FixtureRequest) -> Iterator[str]:
    """The DSN of a fresh, empty database, dropped afterwards."""
    with _fresh_database(ExistingPostgreSql.of_environment() or request.getfixturevalue("postgres_cluster")) as dsn:
        yield dsn


@pytest.fixture(scope="module")
def module_postgres_dsn(request: pytest.FixtureRequest) -> Iterator[str]:
    """As `postgres_dsn`, for all tests of a module."""
    with _fresh_database(ExistingPostgreSql.of_environment() or request.getfixturevalue("postgres_cluster")) as dsn:
        yield dsn


@pytest.fixture
def mongodb_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a fresh, empty database, dropped afterwards if the server is an existing one."""
    with _fresh_mongodb(lambda: request.getfixturevalue("mongodb_server")) as url:
        yield url


@pytest.fixture(scope="module")
def module_mongodb_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """As `mongodb_url`, for all tests of a module."""
    with _fresh_mongodb(lambda: request.getfixturevalue("mongodb_server")) as url:
        yield url


@contextmanager
def _fresh_vhost(private: Callable[[], RabbitMqNode]) -> Iterator[str]:
    existing = ExistingRabbitMq.of_environment()
    if existing:
        yield existing.url()
        return
    node = private()
    name = _fresh_name()
    node.add_vhost(name)
    yield node.url(name)
    node.delete_vhost(name)


@contextmanager
def _fresh_database(server: PostgreSqlCluster | ExistingPostgreSql | ExistingMongoDb) -> Iterator[str]:
    name = _fresh_name()
    yield server.create_database(name)
    server.drop_database(name)


@contextmanager
def _fresh_mongodb(private: Callable[[], MongoDbServer]) -> Iterator[str]:
    existing = ExistingMongoDb.of_environment()
    if existing:
        with _fresh_database(existing) as url:
            yield url
        return
    # Not dropped: SecantusDB takes a minute to drop what some tests write, and the data goes with the tests' directory.
    yield private().create_database(_fresh_name())


def _fresh_name() -> str:
    return f"provgate_test_{secrets.token_hex(4)}"
