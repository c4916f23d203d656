"""A broker, databases and a stack that require TLS and a client certificate of the tests' authority."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from provgate_gateway.access.roles import Role
from provgate_stack.processes.directory import StackDirectory
from provgate_stack.processes.process import LOOPBACK
from provgate_stack.servers.mongodb import MongoDbServer
from provgate_stack.servers.postgresql import PostgreSqlCluster, postgresql_storage
from provgate_stack.servers.private import ServerTls
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack
from tests.support.credentials import Authority, PemFiles, issue_token

_TOKENS: Final = "tokens"


@dataclass(frozen=True)
class Authorities:
    """The authorities: `ours` signs the certificates of the stack; nothing in the stack trusts `stranger`."""

    ours: Authority
    stranger: Authority


@pytest.fixture(scope="session")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Authorities:
    """An authority of the stack's, and another one."""
    directory = tmp_path_factory.mktemp("certificates")
    return Authorities(Authority(directory, "ours"), Authority(directory, "stranger"))


@pytest.fixture(scope="session")
def server_tls(authorities: Authorities) -> ServerTls:
    """The certificates of the servers of the stack. They are for the address and not for `localhost`."""
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
    """A PostgreSQL cluster that accepts only hostssl connections with clientcert=verify-full."""
    cluster = PostgreSqlCluster(stack_directory, "secure-postgresql", server_tls)
    cluster.start()
    yield cluster
    cluster.kill()


@pytest.fixture(scope="session")
def secure_mongodb(stack_directory: StackDirectory, server_tls: ServerTls) -> Iterator[MongoDbServer]:
    """A MongoDB server that accepts only connections with TLS and a certificate."""
    server = MongoDbServer(stack_directory, "secure-mongodb", tls=server_tls)
    server.start()
    yield server
    server.kill()


@dataclass(frozen=True)
class Caller:
    """A caller of the secure stack's gateway, which knows it by a token, or else by the name of its certificate.

    Attributes:
        certificate: its certificate, of our authority.
        token_file: the file of its token; None if the gateway knows the name of its certificate.
    """

    certificate: PemFiles
    token_file: Path | None

    def settings(self, ca: Authority) -> dict[str, str]:
        """Returns the settings of an adapter, or of the section `storage`, beside the URL."""
        token = {} if self.token_file is None else {"token": self.token_file.read_text(encoding="ascii")}
        return client_tls(ca, self.certificate) | token


@dataclass(frozen=True)
class SecureStack:
    """A stack with mutual TLS on every link, and its callers.

    Attributes:
        stack: the stack; its worker program and gateway run.
        callers: the callers by role, and `token` or `certificate`.
        authorities: the authorities; `ours` signed all certificates of the stack.
    """

    stack: Stack
    callers: dict[tuple[str, str], Caller]
    authorities: Authorities


@pytest.fixture(scope="module")
def secure_stack(
    secure_rabbitmq: RabbitMqNode,
    secure_postgresql: PostgreSqlCluster,
    authorities: Authorities,
    stack_directory: StackDirectory,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[SecureStack]:
    """A broker, a database, workers and a gateway with mutual TLS on every link, and callers of three roles."""
    name = f"secure_{secrets.token_hex(4)}"
    secure_rabbitmq.add_vhost(name)
    storage_config = postgresql_storage(secure_postgresql.create_database(name))
    directory = tmp_path_factory.mktemp("tokens")
    callers = _callers(authorities.ours, directory)
    overrides = _overrides(authorities.ours, directory / _TOKENS)
    stack = Stack(secure_rabbitmq.url(name), storage_config, stack_directory, overrides, name=name)
    stack.start()
    yield SecureStack(stack, callers, authorities)
    stack.kill()


def client_tls(ca: Authority, client: PemFiles) -> dict[str, str]:
    """Returns the settings of a certificate, for the adapter, or for a program that connects to the broker."""
    return {"tls_ca_file": str(ca.ca), "tls_cert_file": str(client.certificate), "tls_key_file": str(client.key)}


def _callers(ours: Authority, directory: Path) -> dict[tuple[str, str], Caller]:
    nobody = ours.issue("nobody.example", "nobody.example")
    callers: dict[tuple[str, str], Caller] = {}
    with (directory / _TOKENS).open("w", encoding="ascii") as tokens:
        for role in Role:
            token_file = directory / role.value
            token_file.write_text(issue_token(tokens.write, f"{role.value}-by-token", role), encoding="ascii")
            name = _certificate_name(role)
            callers[role.value, "token"] = Caller(nobody, token_file)
            callers[role.value, "certificate"] = Caller(ours.issue(name, name), None)
    return callers


def _certificate_name(role: Role) -> str:
    return f"{role.value}.example"


def _overrides(ours: Authority, tokens_file: Path) -> dict[str, dict[str, Any]]:
    server = ours.issue("gateway")
    certificates = {_certificate_name(role): role.value for role in Role}
    return {
        "rabbitmq": client_tls(ours, ours.issue("programs")),
        "gateway": {
            "tls_certificate": str(server.certificate),
            "tls_key": str(server.key),
            "tls_client_ca": str(ours.ca),
            "access": {"tokens_file": str(tokens_file), "certificates": certificates},
        },
    }
