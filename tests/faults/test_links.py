"""The links of gateway and workers to broker and database, broken one at a time while writes and reads go on."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final

import grpc
import pytest

from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_stack.processes.directory import StackDirectory
from provgate_stack.processes.process import LOOPBACK
from provgate_stack.processes.programs import ReadyFileProgram
from provgate_stack.servers.mongodb import MongoDbServer, mongodb_storage
from provgate_stack.servers.postgresql import PostgreSqlCluster, postgresql_storage
from provgate_stack.servers.rabbitmq import RabbitMqNode
from tests.faults.system import (
    CONTENTS,
    FIND_FIRST,
    NOTICED_S,
    RECOVERED_S,
    System,
    over,
    postgresql_system_on,
    reads,
    system_on,
)
from tests.support.entries import entry_id
from tests.support.gateway_calls import contents, health, outcome_of, outcome_of_unary
from tests.support.link import Link, Mode
from tests.support.loss_checker import Call
from tests.support.polling import eventually

pytestmark = pytest.mark.faults

HEARTBEAT_S: Final = 1
TIMEOUTS: Final = {
    "connect_timeout_s": 2,
    "write_timeout_s": 3,
    "read_timeout_s": 3,
    "stream_timeout_s": 3,
}
POSTGRESQL_TIMEOUTS: Final = {**TIMEOUTS, "tcp_timeout_s": 4, "lock_timeout_s": 3}

LINKS: Final = ["gateway to broker", "workers to broker", "gateway to PostgreSQL", "workers to PostgreSQL"]
MONGODB_LINKS: Final = ["gateway to MongoDB", "workers to MongoDB"]

on_each_link = pytest.mark.parametrize(
    "name",
    [*LINKS, *(pytest.param(name, marks=(pytest.mark.long, pytest.mark.timeout(900))) for name in MONGODB_LINKS)],
)


@dataclass
class LinkedSystem:
    """A system whose programs reach their servers over links.

    Attributes:
        system: one worker program and one gateway.
        links: by name.
    """

    system: System
    links: dict[str, Link]
    _log_bytes: dict[str, int] = field(default_factory=dict)

    def owner(self, name: str) -> ReadyFileProgram:
        """Returns the program that a link is of."""
        return self.system.gateway if name.startswith("gateway") else self.system.workers

    @contextmanager
    def under_load(self) -> Iterator[ProvenanceStorageStub]:
        """Writes and reads before, during and after a fault; at the end of the block it is over."""
        with self.system.under_load() as stub:
            self._log_bytes = {name: self.owner(name).log_path.stat().st_size for name in self.links}
            try:
                yield stub
            finally:
                self.mend()

    def is_noticed(self, name: str) -> bool:
        """Returns whether the owner of a broken link knows: a gateway by its health, workers by their log."""
        if not name.startswith("gateway"):
            return self.is_logged(name)
        with grpc.insecure_channel(self.system.stack.address) as channel:
            service = "provgate.broker" if name.endswith("broker") else "provgate.storage"
            return health(channel, service) == "NOT_SERVING"

    def is_logged(self, name: str) -> bool:
        """Returns whether the owner of a broken link has logged that it lost the server."""
        logged = self.owner(name).log_path.read_bytes()[self._log_bytes[name] :].decode()
        return (" lost: " if name.endswith("broker") else "the storage is in trouble") in logged

    def mend(self) -> None:
        """Lets every link pass everything again."""
        for link in self.links.values():
            link.mode, link.delay_s, link.cut_after_bytes = Mode.PASS, 0.0, None


@pytest.fixture(scope="module")
def module_linked(
    rabbitmq_node: RabbitMqNode, postgres_cluster: PostgreSqlCluster, stack_directory: StackDirectory
) -> Iterator[LinkedSystem]:
    """A system on PostgreSQL, over four links."""
    with ExitStack() as opened:
        ports = {"broker": rabbitmq_node.port, "PostgreSQL": postgres_cluster.port}
        links = {name: opened.enter_context(Link(LOOPBACK, ports[name.rpartition(" ")[2]])) for name in LINKS}
        to_broker, workers_to_broker, *to_database = links.values()
        system = opened.enter_context(
            postgresql_system_on(rabbitmq_node, postgres_cluster, stack_directory, to_broker, heartbeat=HEARTBEAT_S)
        )
        gateway, workers = (postgresql_storage(over(link, system.dsn), **POSTGRESQL_TIMEOUTS) for link in to_database)
        system.start({"storage_config": gateway}, url=over(workers_to_broker, system.url), storage_config=workers)
        yield LinkedSystem(system, links)


@pytest.fixture(scope="module")
def module_linked_to_mongodb(
    rabbitmq_node: RabbitMqNode, mongodb_server: MongoDbServer, stack_directory: StackDirectory
) -> Iterator[LinkedSystem]:
    """A system on MongoDB, over two links to it."""
    name = f"mongodb_links_{secrets.token_hex(4)}"
    # Without `directConnection` a client leaves the link for the address that the server tells it.
    url = mongodb_server.url(f"{name}?directConnection=true")
    with ExitStack() as opened:
        links = {link: opened.enter_context(Link(LOOPBACK, mongodb_server.port)) for link in MONGODB_LINKS}
        gateway, workers = (mongodb_storage(over(link, url), **TIMEOUTS) for link in links.values())
        system = opened.enter_context(
            system_on(rabbitmq_node, mongodb_server.storage_config(name), stack_directory, heartbeat=HEARTBEAT_S)
        )
        system.start({"storage_config": gateway}, storage_config=workers)
        yield LinkedSystem(system, links)


@pytest.fixture
def linked(request: pytest.FixtureRequest, name: str) -> Iterator[LinkedSystem]:
    """The system that a link belongs to."""
    fixture = "module_linked_to_mongodb" if name.endswith("MongoDB") else "module_linked"
    linked: LinkedSystem = request.getfixturevalue(fixture)
    yield linked
    linked.mend()


@on_each_link
def test_a_black_hole_is_noticed(linked: LinkedSystem, name: str) -> None:
    with linked.under_load() as stub:
        linked.links[name].mode = Mode.BLACK_HOLE
        # No call takes longer than its deadline, whether it needs the link or not.
        written = outcome_of(stub.ContentAdd(iter([contents(5)]), timeout=2))
        ids = [entry_id(number) for number in range(5)]
        linked.system.checker.record(Call("content_add", (ids,), written.ok, None))
        for outcome in (written, *reads(stub, timeout_s=2)):
            assert outcome.code in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            assert outcome.elapsed_s < 4
        eventually(lambda: linked.is_noticed(name), "the black hole is noticed", NOTICED_S)


@on_each_link
def test_a_link_that_is_reset_is_made_again(linked: LinkedSystem, name: str) -> None:
    check_broken_link(linked, name, Link.reset)


@on_each_link
def test_a_link_that_is_half_closed_is_made_again(linked: LinkedSystem, name: str) -> None:
    check_broken_link(linked, name, Link.half_close)


def check_broken_link(linked: LinkedSystem, name: str, break_all: Callable[[Link], int]) -> None:
    """Breaks the connections of a link three times, and checks that its owner notices and makes them again."""
    link = linked.links[name]
    with linked.under_load() as stub:
        for _ in range(3):
            eventually(lambda: link.connection_count > 0, "there is a connection", RECOVERED_S)
            made_before = link.made_count
            assert break_all(link) > 0
            wait_made_again(link, stub, made_before)
        # A connection to a database that breaks between two statements is replaced without a word.
        if name.endswith("to broker"):
            eventually(lambda: linked.is_logged(name), "the loss is in the log", NOTICED_S)


@on_each_link
def test_a_link_that_breaks_after_some_bytes_is_made_again(linked: LinkedSystem, name: str) -> None:
    # Anywhere: in a handshake, in a statement, in a reply.
    link = linked.links[name]
    cut_before = link.cut_count
    with linked.under_load() as stub:
        for limit_bytes in (500, 3_000, 20_000, 100_000):
            link.cut_after_bytes = limit_bytes
            made_before = link.made_count
            for _ in range(5):
                is_made_again(link, stub, made_before)
                time.sleep(0.1)
        assert link.cut_count > cut_before
        link.cut_after_bytes = None
        wait_made_again(link, stub, made_before)
        # A gateway replaces a connection that broke while nobody read without a word.
        if name not in ("gateway to PostgreSQL", "gateway to MongoDB"):
            eventually(lambda: linked.is_logged(name), "the loss is in the log", NOTICED_S)


def wait_made_again(link: Link, stub: ProvenanceStorageStub, made_before: int) -> None:
    eventually(lambda: is_made_again(link, stub, made_before), "a connection is made again", RECOVERED_S)


def is_made_again(link: Link, stub: ProvenanceStorageStub, made_before: int) -> bool:
    # A gateway connects to the database when it is asked something.
    outcome = outcome_of(stub.EntityGetAll(CONTENTS, timeout=30))
    assert outcome.code in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
    return link.made_count > made_before


@pytest.mark.long
@pytest.mark.parametrize("name", LINKS)
def test_a_slow_link_is_used_as_it_is(linked: LinkedSystem, name: str) -> None:
    with linked.under_load() as stub:
        linked.links[name].delay_s = 0.1
        calls = linked.system.checker.calls
        wanted = len(calls) + 6
        eventually(lambda: len(calls) >= wanted, "writes are acked over the slow link", RECOVERED_S)
        # Of one row: all that the module has written comes in many pieces.
        for _ in range(4):
            assert outcome_of_unary(lambda: stub.ContentFindFirst(FIND_FIRST, timeout=20)).ok
        assert not linked.is_noticed(name)
