"""A broker, databases and a stack that encrypt, and take only clients with a certificate of the tests' authority."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from provgate_stack.directory import StackDirectory
from provgate_stack.mongodb import MongoDbServer
from provgate_stack.ports import LOOPBACK
from provgate_stack.postgresql import PostgreSqlCluster, postgresql_storage
from provgate_stack.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack
from provgate_stack.tls import ServerTls
from tests.certificates import Authority, PemFiles


@dataclass(frozen=True)
class Authorities:
    """Who signs certificates: `ours` those of the stack, `stranger` those that nobody here should take."""

    ours: Authority
    stranger: Authority


@pytest.fixture(scope="session")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Authorities:
    """An authority of the stack's, and another one."""
    directory = tmp_path_factory.mktemp("certificates")
    return Authorities(Authority(directory, "ours"), Authority(directory, "stranger"))


@pytest.fixture(scope="session")
def server_tls(authorities: Authorities) -> ServerTls:
    """What servers of the stack show and require. Their certificate is for the address and not for `localhost`."""
    server = authorities.ours.issue("server", LOOPBACK)
    return ServerTls(server.certificate, server.key, authorities.ours.ca, authorities.ours.issue("provgate").both)


@pytest.fixture(scope="session")
def secure_rabbitmq(stack_directory: StackDirectory, server_tls: ServerTls) -> Iterator[RabbitMqNode]:
    """A RabbitMQ node that listens for amqps:// alone."""
    node = RabbitMqNode(stack_directory, "secure-rabbitmq", server_tls)
    node.start()
    yield node
    node.kill()


@pytest.fixture(scope="session")
def secure_postgresql(stack_directory: StackDirectory, server_tls: ServerTls) -> Iterator[PostgreSqlCluster]:
    """A PostgreSQL cluster that takes connections by hostssl with clientcert=verify-full alone."""
    cluster = PostgreSqlCluster(stack_directory, "secure-postgresql", server_tls)
    cluster.start()
    yield cluster
    cluster.kill()


@pytest.fixture(scope="session")
def secure_mongodb(stack_directory: StackDirectory, server_tls: ServerTls) -> Iterator[MongoDbServer]:
    """A MongoDB server that takes connections with TLS and a certificate alone."""
    server = MongoDbServer(stack_directory, "secure-mongodb", tls=server_tls)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def secure_stack(
    secure_rabbitmq: RabbitMqNode,
    secure_postgresql: PostgreSqlCluster,
    authorities: Authorities,
    stack_directory: StackDirectory,
) -> Iterator[Stack]:
    """A stack with mutual TLS on every link, whose worker program and gateway run."""
    name = f"secure_{secrets.token_hex(4)}"
    secure_rabbitmq.add_vhost(name)
    storage_config = postgresql_storage(secure_postgresql.create_database(name))
    stack = Stack(secure_rabbitmq.url(name), storage_config, stack_directory, _overrides(authorities.ours), name=name)
    stack.start()
    yield stack
    stack.kill()


def client_tls(ca: Authority, client: PemFiles) -> dict[str, str]:
    """Returns the settings with which the adapter, or a program before the broker, shows a certificate."""
    return {"tls_ca_file": str(ca.ca), "tls_cert_file": str(client.certificate), "tls_key_file": str(client.key)}


def _overrides(ours: Authority) -> dict[str, dict[str, Any]]:
    server, program, client = ours.issue("gateway"), ours.issue("programs"), ours.issue("client")
    return {
        "storage": client_tls(ours, client),
        "rabbitmq": client_tls(ours, program),
        "gateway": {
            "tls_certificate": str(server.certificate),
            "tls_key": str(server.key),
            "tls_client_ca": str(ours.ca),
        },
    }
