"""The two servers of a stack: existing ones, which the environment names, or private ones."""

from __future__ import annotations

import os
from typing import Any, ClassVar, Final, Self
from urllib.parse import parse_qs, urlsplit

from psycopg2.extensions import make_dsn

from provgate_stack.processes.directory import StackDirectory
from provgate_stack.servers import mongodb, postgresql
from provgate_stack.servers.mongodb import MongoDbServer
from provgate_stack.servers.postgresql import PostgreSqlCluster
from provgate_stack.servers.rabbitmq import RabbitMqNode

AMQP_VARIABLE: Final = "PROVGATE_AMQP_URL"
POSTGRES_VARIABLE: Final = "PROVGATE_POSTGRES_DSN"
MONGODB_VARIABLE: Final = "PROVGATE_MONGODB_URL"

STORAGES: Final = {"postgresql": "PostgreSQL", "mongodb": "MongoDB"}
"""The databases of a stack: the name in configurations, and the name for people."""

_DATABASE: Final = "provgate"


class _ExistingServer:
    """A server that somebody else runs.

    Args:
        url: the URL or DSN.
    """

    variable: ClassVar[str]

    def __init__(self, url: str) -> None:
        self._url = url

    @classmethod
    def of_environment(cls) -> Self | None:
        """Returns the server that the environment variable names, or None."""
        url = os.environ.get(cls.variable)
        return cls(url) if url else None


class ExistingRabbitMq(_ExistingServer):
    """An existing broker, with one virtual host for the stack.

    AMQP cannot create virtual hosts, so that of the URL is used as it is, and what is declared in it stays.
    """

    variable = AMQP_VARIABLE

    def __str__(self) -> str:
        """Returns the address without the password."""
        parts = urlsplit(self._url)
        return f"{parts.hostname}:{parts.port or 5672}{parts.path}"

    def url(self) -> str:
        """Returns the URL."""
        return self._url


class ExistingPostgreSql(_ExistingServer):
    """An existing PostgreSQL server, with one database for the stack."""

    variable = POSTGRES_VARIABLE

    def storage_config(self) -> dict[str, Any]:
        """Returns the storage configuration of the database that the DSN names."""
        return postgresql.postgresql_storage(self._url)

    def create_database(self, name: str) -> str:
        """Creates an empty database beside the given one and returns its DSN; the user needs CREATEDB."""
        postgresql.create_database(self._url, name)
        return str(make_dsn(self._url, dbname=name))

    def drop_database(self, name: str) -> None:
        """Drops a database that `create_database` created."""
        postgresql.drop_database(self._url, name)


class ExistingMongoDb(_ExistingServer):
    """An existing MongoDB server or replica set, with one database for the stack."""

    variable = MONGODB_VARIABLE

    def storage_config(self) -> dict[str, Any]:
        """Returns the storage configuration of the database that the URL names."""
        return mongodb.mongodb_storage(self._url)

    def create_database(self, name: str) -> str:
        """Returns the URL of a database beside the given one; the user needs the right to write to it."""
        parts = urlsplit(self._url)
        given = parts.path.lstrip("/")
        # By default a user is looked up in the database of the URL:
        # https://www.mongodb.com/docs/manual/reference/connection-string-options/
        if parts.username and given and "authsource" not in parse_qs(parts.query.lower()):
            parts = parts._replace(query="&".join(filter(None, (parts.query, f"authSource={given}"))))
        return parts._replace(path=f"/{name}").geturl()

    def drop_database(self, name: str) -> None:
        """Drops a database that `create_database` named."""
        mongodb.drop_database(self._url, name)


class Servers:
    """A broker and a database server. Those that the environment does not name are private, and started.

    Args:
        directory: the directory of the stack.
        storage: a key of `STORAGES`.

    Raises:
        MissingProgramError: a server is needed and not installed.
    """

    def __init__(self, directory: StackDirectory, storage: str) -> None:
        self.rabbitmq = ExistingRabbitMq.of_environment() or RabbitMqNode(directory)
        self.database: ExistingPostgreSql | PostgreSqlCluster | ExistingMongoDb | MongoDbServer
        if storage == "mongodb":
            self.database = ExistingMongoDb.of_environment() or MongoDbServer(directory)
        else:
            self.database = ExistingPostgreSql.of_environment() or PostgreSqlCluster(directory)
        self._storage = storage

    def start(self) -> tuple[str, dict[str, Any]]:
        """Starts the private ones; returns the broker's URL and the storage configuration once both are ready."""
        if isinstance(self.rabbitmq, RabbitMqNode):
            self.rabbitmq.launch()
        if isinstance(self.database, ExistingPostgreSql | ExistingMongoDb):
            storage_config = self.database.storage_config()
        else:
            self.database.start()
            self.database.create_database(_DATABASE)
            storage_config = self.database.storage_config(_DATABASE)
        if isinstance(self.rabbitmq, RabbitMqNode):
            self.rabbitmq.wait_ready()
        return self.rabbitmq.url(), storage_config

    def private_roles(self) -> list[str]:
        """Returns the roles of the private ones' processes."""
        servers = {"rabbitmq": self.rabbitmq, self._storage: self.database}
        return [role for role, server in servers.items() if not isinstance(server, _ExistingServer)]
