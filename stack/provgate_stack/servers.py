"""The two servers below a stack: those that exist already, or private ones."""

from __future__ import annotations

from typing import Any, Final

from provgate_stack.directory import StackDirectory
from provgate_stack.existing import ExistingMongoDb, ExistingPostgreSql, ExistingRabbitMq
from provgate_stack.mongodb import MongoDbServer
from provgate_stack.postgresql import PostgreSqlCluster
from provgate_stack.rabbitmq import RabbitMqNode

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
