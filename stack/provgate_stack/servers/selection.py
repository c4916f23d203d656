"""The two servers below a stack: those that exist already, or private ones."""

from __future__ import annotations

import os
from typing import Any, Final
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


class ExistingRabbitMq:
    """A broker that somebody else runs, with one virtual host for us.

    Virtual hosts cannot be made over AMQP: the one of the URL is used as it is, and what is declared in it stays.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    @classmethod
    def of_environment(cls) -> ExistingRabbitMq | None:
        """Returns the broker that PROVGATE_AMQP_URL names, or None."""
        url = os.environ.get(AMQP_VARIABLE)
        return cls(url) if url else None

    def __str__(self) -> str:
        """Says where the broker is, without the password."""
        parts = urlsplit(self._url)
        return f"{parts.hostname}:{parts.port or 5672}{parts.path}"

    def url(self) -> str:
        """Returns the URL as it was given."""
        return self._url


class ExistingPostgreSql:
    """A PostgreSQL server that somebody else runs, with one database for us."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    @classmethod
    def of_environment(cls) -> ExistingPostgreSql | None:
        """Returns the server that PROVGATE_POSTGRES_DSN names, or None."""
        dsn = os.environ.get(POSTGRES_VARIABLE)
        return cls(dsn) if dsn else None

    def storage_config(self) -> dict[str, Any]:
        """Returns the storage configuration of the database that the DSN names."""
        return postgresql.postgresql_storage(self._dsn)

    def create_database(self, name: str) -> str:
        """Makes an empty database beside the given one and returns its DSN; the user needs CREATEDB for it."""
        postgresql.create_database(self._dsn, name)
        return str(make_dsn(self._dsn, dbname=name))

    def drop_database(self, name: str) -> None:
        """Drops a database that `create_database` made."""
        postgresql.drop_database(self._dsn, name)


class ExistingMongoDb:
    """A MongoDB server, or a replica set, that somebody else runs, with one database for us."""

    def __init__(self, url: str) -> None:
        self._url = url

    @classmethod
    def of_environment(cls) -> ExistingMongoDb | None:
        """Returns the server that PROVGATE_MONGODB_URL names, or None."""
        url = os.environ.get(MONGODB_VARIABLE)
        return cls(url) if url else None

    def storage_config(self) -> dict[str, Any]:
        """Returns the storage configuration of the database that the URL names."""
        return mongodb.mongodb_storage(self._url)

    def create_database(self, name: str) -> str:
        """Returns the URL of a database beside the given one; the user needs the right to write to it."""
        parts = urlsplit(self._url)
        given = parts.path.lstrip("/")
        # A user is known to the database of the URL unless told otherwise:
        # https://www.mongodb.com/docs/manual/reference/connection-string-options/
        if parts.username and given and "authsource" not in parse_qs(parts.query.lower()):
            parts = parts._replace(query="&".join(filter(None, (parts.query, f"authSource={given}"))))
        return parts._replace(path=f"/{name}").geturl()

    def drop_database(self, name: str) -> None:
        """Drops a database that `create_database` named."""
        mongodb.drop_database(self._url, name)


STORAGES: Final = {"postgresql": "PostgreSQL", "mongodb": "MongoDB"}
"""The databases that a stack can run on, as configurations name them and as people do."""

_DATABASE: Final = "provgate"


class Servers:
    """A broker and a database server, of which those are started that the environment does not name.

    Args:
        directory: of the stack that they are for.
        storage: of `STORAGES`.

    Raises:
        MissingProgramError: a server is needed and not installed.
    """

    def __init__(self, directory: StackDirectory, storage: str) -> None:
        self.rabbitmq = ExistingRabbitMq.of_environment() or RabbitMqNode(directory)
        self.database = _database_server(directory, storage)
        self._storage = storage

    def start(self) -> tuple[str, dict[str, Any]]:
        """Starts the private ones; returns the broker's URL and the storage configuration once both are ready."""
        if isinstance(self.rabbitmq, RabbitMqNode):
            self.rabbitmq.launch()
        storage_config = self._start_database()
        if isinstance(self.rabbitmq, RabbitMqNode):
            self.rabbitmq.wait_ready()
        return self.rabbitmq.url(), storage_config

    def private_roles(self) -> list[str]:
        """Returns the roles of the private ones' processes."""
        private = {"rabbitmq": self.rabbitmq, self._storage: self.database}
        kinds = RabbitMqNode | PostgreSqlCluster | MongoDbServer
        return [role for role, server in private.items() if isinstance(server, kinds)]

    def _start_database(self) -> dict[str, Any]:
        if isinstance(self.database, ExistingPostgreSql | ExistingMongoDb):
            return self.database.storage_config()
        self.database.start()
        self.database.create_database(_DATABASE)
        return self.database.storage_config(_DATABASE)


def _database_server(
    directory: StackDirectory, storage: str
) -> ExistingPostgreSql | PostgreSqlCluster | ExistingMongoDb | MongoDbServer:
    if storage == "mongodb":
        return ExistingMongoDb.of_environment() or MongoDbServer(directory)
    return ExistingPostgreSql.of_environment() or PostgreSqlCluster(directory)
