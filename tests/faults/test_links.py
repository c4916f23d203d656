"""The links of gateway and workers to broker and database, broken one at a time while writes and reads go on."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import grpc
import pytest

from provgate.v1 import model_pb2
from provgate.v1 import provenance_storage_pb2 as pb2
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_stack.directory import StackDirectory
from provgate_stack.postgresql import PostgreSqlCluster, postgresql_storage
from provgate_stack.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack, StorageConfig
from tests.faults.checker import Call, Checker
from tests.faults.conftest import FEW_RANGES
from tests.faults.link import Link, Mode
from tests.faults.load import Load, check
from tests.integration.gateway_calls import (
    Outcome,
    connected,
    content_id,
    contents,
    eventually,
    health,
    outcome_of,
    outcome_of_unary,
    wait_serving,
)

pytestmark = pytest.mark.faults

HEARTBEAT_S: Final = 2
STORAGE_TIMEOUT_S: Final = 3
NOTICED_S: Final = 20.0
RECOVERED_S: Final = 60.0

CONTENTS: Final = pb2.EntityGetAllRequest(entity=model_pb2.ENTITY_TYPE_CONTENT)
TIMEOUTS: Final = {
    "connect_timeout_s": 2,
    "tcp_timeout_s": 4,
    "lock_timeout_s": STORAGE_TIMEOUT_S,
    "write_timeout_s": STORAGE_TIMEOUT_S,
    "read_timeout_s": STORAGE_TIMEOUT_S,
    "stream_timeout_s": STORAGE_TIMEOUT_S,
}

# How each program tells that it has lost a server.
HEALTH: Final = {"broker": "provgate.broker", "database": "provgate.storage"}
SIGNS: Final = {"broker": "connection lost", "database": "the storage is in trouble"}

FIND_FIRST: Final = pb2.ContentFindFirstRequest(id=content_id(1))

LINKS: Final = ["gateway to broker", "workers to broker", "gateway to database", "workers to database"]


@dataclass
class LinkedStack:
    """A stack that reaches its servers over links, and what is written to it.

    Attributes:
        stack: one gateway and one worker program.
        links: by name.
        storage_config: of the database, directly.
        checker: of all tests of the module, since they share the database.
    """

    stack: Stack
    links: dict[str, Link]
    storage_config: StorageConfig
    checker: Checker
    _log_bytes: int = 0

    def mark(self) -> None:
        """Has `noticed` look at what happens from now on."""
        self._log_bytes = self.stack.workers[0].log_path.stat().st_size

    def noticed(self, name: str) -> bool:
        """Whether the owner of a broken link knows: a gateway by its health, workers by their log."""
        program, _, server = name.partition(" to ")
        if program == "gateway":
            with grpc.insecure_channel(self.stack.address) as channel:
                return health(channel, HEALTH[server]) == "NOT_SERVING"
        said = self.stack.workers[0].log_path.read_bytes()[self._log_bytes :].decode()
        return SIGNS[server] in said

    def mend(self) -> None:
        """Has every link pass everything again."""
        for link in self.links.values():
            link.mode, link.delay_s, link.cut_after_bytes = Mode.PASS, 0.0, None


@pytest.fixture(scope="module")
def module_linked(
    rabbitmq_node: RabbitMqNode, postgres_cluster: PostgreSqlCluster, stack_directory: StackDirectory
) -> Iterator[LinkedStack]:
    name = f"links_{secrets.token_hex(4)}"
    rabbitmq_node.add_vhost(name)
    broker_url, database_dsn = rabbitmq_node.url(name), postgres_cluster.create_database(name)
    with ExitStack() as open_links:
        links = {
            link: open_links.enter_context(
                Link("127.0.0.1", rabbitmq_node.port if link.endswith("broker") else postgres_cluster.port)
            )
            for link in LINKS
        }
        stack = start_over(links, broker_url, database_dsn, stack_directory, name)
        yield LinkedStack(stack, links, postgresql_storage(database_dsn), Checker())
        stack.kill()
    rabbitmq_node.delete_vhost(name)
    postgres_cluster.drop_database(name)


def start_over(
    links: dict[str, Link], broker_url: str, database_dsn: str, directory: StackDirectory, name: str
) -> Stack:
    def storage(program: str) -> StorageConfig:
        return postgresql_storage(over(links[f"{program} to database"], database_dsn), **TIMEOUTS)

    rabbitmq = {"ranges": FEW_RANGES, "heartbeat": HEARTBEAT_S}
    broker = over(links["gateway to broker"], broker_url)
    stack = Stack(broker, storage("gateway"), directory, {"rabbitmq": rabbitmq}, name)
    stack.start_workers(url=over(links["workers to broker"], broker_url), storage_config=storage("workers"))
    stack.start_gateway(listen=stack.address)
    return stack


def over(link: Link, url: str) -> str:
    """Returns the URL of a server as it is reached over a link."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{link.port}")).geturl()


@pytest.fixture
def linked(module_linked: LinkedStack) -> Iterator[LinkedStack]:
    yield module_linked
    module_linked.mend()


@pytest.fixture(params=LINKS)
def name(request: pytest.FixtureRequest) -> str:
    link: str = request.param
    return link


@contextmanager
def under_load(linked: LinkedStack) -> Iterator[tuple[Load, ProvenanceStorageStub]]:
    """Writes before, during and after what the test does; in the end every write is acked, and what is acked stored."""
    with Load(linked.stack.address, linked.checker) as load, connected(linked.stack.address) as (channel, stub):
        load.wait_for_acks()
        # Every kind of connection is made by now.
        assert outcome_of(stub.EntityGetAll(CONTENTS, timeout=20)).ok
        linked.mark()
        try:
            yield load, stub
        finally:
            linked.mend()
        load.wait_for_acks(RECOVERED_S)
        wait_serving(channel)
        load.stop()
        assert not load.failures
        assert outcome_of(stub.EntityGetAll(CONTENTS, timeout=20)).ok
        check(linked.checker, linked.storage_config)


def test_a_black_hole_is_noticed(linked: LinkedStack, name: str) -> None:
    with under_load(linked) as (_, stub):
        linked.links[name].mode = Mode.BLACK_HOLE
        # Nothing hangs past its deadline, whether it needs the link or not.
        for outcome in (
            write_few(linked, stub),
            outcome_of(stub.EntityGetAll(CONTENTS, timeout=2)),
            outcome_of_unary(lambda: stub.ContentFindFirst(FIND_FIRST, timeout=2)),
        ):
            assert outcome.code in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            assert outcome.elapsed_s < 4
        eventually(lambda: linked.noticed(name), "the black hole is noticed", NOTICED_S)


def write_few(linked: LinkedStack, stub: ProvenanceStorageStub) -> Outcome:
    outcome = outcome_of(stub.ContentAdd(iter([contents(5)]), timeout=2))
    linked.checker.record(Call("content_add", ([content_id(number) for number in range(5)],), outcome.ok, None))
    return outcome


def test_a_link_that_is_reset_is_made_again(linked: LinkedStack, name: str) -> None:
    with under_load(linked):
        for _ in range(3):
            linked.links[name].reset()
            time.sleep(0.5)


def test_a_link_that_is_half_closed_is_made_again(linked: LinkedStack, name: str) -> None:
    with under_load(linked):
        for _ in range(3):
            linked.links[name].half_close()
            time.sleep(0.5)


def test_a_link_that_breaks_after_some_bytes_is_made_again(linked: LinkedStack, name: str) -> None:
    with under_load(linked) as (_, stub):
        # Anywhere: in a handshake, in a statement, in a reply.
        for limit_bytes in (500, 3_000, 20_000, 100_000):
            linked.links[name].cut_after_bytes = limit_bytes
            for _ in range(5):
                outcome = outcome_of(stub.EntityGetAll(CONTENTS, timeout=5))
                assert outcome.code in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
                time.sleep(0.1)


def test_a_slow_link_is_used_as_it_is(linked: LinkedStack, name: str) -> None:
    with under_load(linked) as (load, stub):
        linked.links[name].delay_s = 0.1
        load.wait_for_acks(RECOVERED_S)
        # Of one row: all that the module has written comes in many pieces.
        for _ in range(4):
            assert outcome_of_unary(lambda: stub.ContentFindFirst(FIND_FIRST, timeout=20)).ok
        assert not linked.noticed(name)
