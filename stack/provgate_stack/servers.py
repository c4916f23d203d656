"""The two servers below a stack: those that exist already, or private ones."""

from __future__ import annotations

from typing import Any, Final

from provgate_stack.directory import StackDirectory
from provgate_stack.existing import ExistingPostgreSql, ExistingRabbitMq
from provgate_stack.postgresql import PostgreSqlCluster
from provgate_stack.rabbitmq import RabbitMqNode

_DATABASE: Final = "provgate"


class Servers:
    """A broker and a database server, of which those are started that the environment does not name.

    Args:
        directory: of the stack that they are for.

    Raises:
        MissingProgramError: a server is needed and not installed.
    """

    def __init__(self, directory: StackDirectory) -> None:
        self.rabbitmq = ExistingRabbitMq.of_environment() or RabbitMqNode(directory)
        self.postgresql = ExistingPostgreSql.of_environment() or PostgreSqlCluster(directory)

    def start(self) -> tuple[str, dict[str, Any]]:
        """Starts the private ones; returns the broker's URL and the storage configuration once both are ready."""
        if isinstance(self.rabbitmq, RabbitMqNode):
            self.rabbitmq.launch()
        storage_config = self._start_postgresql()
        if isinstance(self.rabbitmq, RabbitMqNode):
            self.rabbitmq.wait_ready()
        return self.rabbitmq.url(), storage_config

    def private_roles(self) -> list[str]:
        """Returns the roles of the private ones' processes."""
        private = {"rabbitmq": self.rabbitmq, "postgresql": self.postgresql}
        return [role for role, server in private.items() if isinstance(server, RabbitMqNode | PostgreSqlCluster)]

    def _start_postgresql(self) -> dict[str, Any]:
        if isinstance(self.postgresql, ExistingPostgreSql):
            return self.postgresql.storage_config()
        self.postgresql.start()
        self.postgresql.create_database(_DATABASE)
        return self.postgresql.storage_config(_DATABASE)
