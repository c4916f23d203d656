"""The system that a fault test breaks: programs on a virtual host and a database of their own."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from provgate.v1 import model_pb2
from provgate.v1 import provenance_storage_pb2 as pb2
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE, QUARANTINE_QUEUE
from provgate_stack.processes.directory import StackDirectory
from provgate_stack.processes.programs import GatewayProgram, WorkerProgram
from provgate_stack.servers.postgresql import PostgreSqlCluster, postgresql_storage
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack, StorageConfig
from provgate_storage import get_provenance_storage
from tests.faults.load import Load, WatchedWrite, Writing
from tests.faults.postgresql import fresh_database
from tests.support.broker import Consumers, consumers, message_count, queue_names, unacked_count
from tests.support.entries import entry_id
from tests.support.fix_stack import FEW_RANGES
from tests.support.gateway_calls import Outcome, connected, outcome_of, outcome_of_unary, wait_serving
from tests.support.link import Link
from tests.support.loss_checker import Checker
from tests.support.packages import AmqpSender, stored_count

NOTICED_S: Final = 60.0
"""How soon a program notices that a server is away, on a busy machine."""

RECOVERED_S: Final = 90.0
"""How soon everything goes on once a fault is over, on a busy machine."""

FIND_FIRST: Final = pb2.ContentFindFirstRequest(id=entry_id(1))
CONTENTS: Final = pb2.EntityGetAllRequest(entity=model_pb2.ENTITY_TYPE_CONTENT)


def reads(stub: ProvenanceStorageStub, timeout_s: float = 20.0) -> list[Outcome]:
    """Makes a unary read and a streamed one."""
    return [
        outcome_of_unary(lambda: stub.ContentFindFirst(FIND_FIRST, timeout=timeout_s)),
        outcome_of(stub.EntityGetAll(CONTENTS, timeout=timeout_s)),
    ]


@dataclass
class System:
    """Worker programs and gateways on private servers, and what was written to them.

    Attributes:
        stack: a stack with few queues. A test starts the programs that it needs.
        node: the broker.
        url: the URL of the virtual host.
        storage_config: the storage configuration of the database.
        checker: knows what was written and acked.
    """

    stack: Stack
    node: RabbitMqNode
    url: str
    storage_config: StorageConfig
    checker: Checker = field(default_factory=Checker)

    @property
    def dsn(self) -> str:
        """The connection string of the database."""
        return str(self.storage_config["db"])

    @property
    def workers(self) -> WorkerProgram:
        """The first worker program."""
        return self.stack.workers[0]

    @property
    def gateway(self) -> GatewayProgram:
        """The first gateway."""
        return self.stack.gateways[0]

    def start(self, gateway: dict[str, Any] | None = None, **rabbitmq: Any) -> None:
        """Starts one worker program and the first gateway, with settings of these programs alone."""
        self.stack.start_workers(**rabbitmq)
        self.stack.start_gateway(listen=self.stack.address, **gateway or {})

    def load(self) -> Load:
        """Returns writes of every kind through the first gateway."""
        return Load(self.stack.address, self.checker)

    def writing(self, **settings: Any) -> Writing:
        """Returns an adapter for single writes through the first gateway."""
        return Writing(self.stack.address, self.checker, **settings)

    def watched_write(self, method: str, entries: Sized) -> WatchedWrite:
        """Returns one write through the first gateway."""
        return WatchedWrite(self.stack.address, self.checker, method, entries)

    @contextmanager
    def under_load(self) -> Iterator[ProvenanceStorageStub]:
        """Writes before, during and after a fault; in the end every write is acked and what is acked is stored."""
        with self.load() as load, connected(self.stack.address) as (channel, stub):
            load.wait_for_acks()
            # Every kind of connection is open from here on.
            assert all(outcome.ok for outcome in reads(stub))
            yield stub
            load.wait_for_acks(RECOVERED_S)
            wait_serving(channel)
            assert all(outcome.ok for outcome in reads(stub))
            self.check_all_acked(load)

    def check_all_acked(self, load: Load) -> None:
        """Ends a load of which every call must have ended with OK, and compares what the database holds."""
        load.stop()
        assert not load.failures
        self.check()

    def check(self) -> None:
        """Compares what the database holds with what was written and acked."""
        with get_provenance_storage(**self.storage_config) as held:
            self.checker.check(held)

    def stored_count(self, ids: Iterable[bytes]) -> int:
        """Returns how many of some contents the database holds."""
        return stored_count(self.storage_config, ids)

    def message_count(self) -> int:
        """Returns how many packages the queues hold, delivered or not."""
        return message_count(self.node, self.url)

    def unacked_count(self) -> int:
        """Returns how many packages are delivered and not acked."""
        return unacked_count(self.node, self.url)

    def consumers(self) -> Consumers:
        """Returns the consumers of each queue."""
        return consumers(self.node, self.url)

    def queue_names(self) -> set[str]:
        """Returns the names of all queues, reply queues too."""
        return queue_names(self.node, self.url)

    def check_nothing_set_aside(self) -> None:
        """Checks that there are neither dead letters nor packages in quarantine."""
        with AmqpSender(self.url) as sender:
            assert sender.message_count(DEAD_LETTER_QUEUE) == sender.message_count(QUARANTINE_QUEUE) == 0


@contextmanager
def system_on(
    node: RabbitMqNode,
    storage_config: StorageConfig,
    directory: StackDirectory,
    broker_link: Link | None = None,
    **rabbitmq: Any,
) -> Iterator[System]:
    """Gives a system on a fresh virtual host and a database, of which nothing is started.

    Args:
        node: the broker.
        storage_config: of the database.
        directory: of the tests.
        broker_link: the programs reach the broker over it.
        **rabbitmq: settings of the section `rabbitmq` of all programs.
    """
    name = f"faults_{secrets.token_hex(4)}"
    node.add_vhost(name)
    url = node.url(name)
    stack_url = url if broker_link is None else over(broker_link, url)
    stack = Stack(stack_url, storage_config, directory, {"rabbitmq": {"ranges": FEW_RANGES, **rabbitmq}}, name)
    try:
        yield System(stack, node, url, storage_config)
    finally:
        stack.kill()
        node.delete_vhost(name)


@contextmanager
def postgresql_system_on(
    node: RabbitMqNode,
    cluster: PostgreSqlCluster,
    directory: StackDirectory,
    broker_link: Link | None = None,
    **rabbitmq: Any,
) -> Iterator[System]:
    """Gives a system on a fresh database of PostgreSQL, as `system_on` does."""
    with (
        fresh_database(cluster) as dsn,
        system_on(node, postgresql_storage(dsn), directory, broker_link, **rabbitmq) as system,
    ):
        yield system


def over(link: Link, url: str) -> str:
    """Returns the URL of a server with a link in its place."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{link.port}")).geturl()
