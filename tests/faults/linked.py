"""A stack that reaches its servers over links which a test breaks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import grpc

from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_stack.processes.directory import StackDirectory
from provgate_stack.stack import Stack, StorageConfig
from tests.faults.database_trouble import CONTENTS, FIND_FIRST, RECOVERED_S
from tests.faults.load import Load, check
from tests.support.entries import entry_id
from tests.support.fix_stack import FEW_RANGES
from tests.support.gateway_calls import Outcome, connected, contents, health, outcome_of, outcome_of_unary, wait_serving
from tests.support.link import Link, Mode
from tests.support.loss_checker import Call, Checker
from tests.support.polling import eventually

HEARTBEAT_S: Final = 2
STORAGE_TIMEOUT_S: Final = 3
NOTICED_S: Final = 20.0

# How each program tells that it has lost a server.
HEALTH: Final = {"broker": "provgate.broker", "database": "provgate.storage"}
SIGNS: Final = {"broker": " lost: ", "database": "the storage is in trouble"}


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
    _log_bytes: tuple[int, int] = (0, 0)

    def mark(self) -> None:
        """Has `noticed` and `told` look at what happens from now on."""
        programs = (self.stack.gateways[0], self.stack.workers[0])
        gateway_bytes, workers_bytes = (program.log_path.stat().st_size for program in programs)
        self._log_bytes = (gateway_bytes, workers_bytes)

    def noticed(self, name: str) -> bool:
        """Whether the owner of a broken link knows: a gateway by its health, workers by their log."""
        program, _, server = name.partition(" to ")
        if program == "gateway":
            with grpc.insecure_channel(self.stack.address) as channel:
                return health(channel, HEALTH[server]) == "NOT_SERVING"
        return self.told(name)

    def told(self, name: str) -> bool:
        """Whether the owner of a broken link has written in its log that it lost the server."""
        program, _, server = name.partition(" to ")
        is_gateway = program == "gateway"
        log_path = self.stack.gateways[0].log_path if is_gateway else self.stack.workers[0].log_path
        said = log_path.read_bytes()[self._log_bytes[0 if is_gateway else 1] :].decode()
        return SIGNS[server] in said

    def mend(self) -> None:
        """Has every link pass everything again."""
        for link in self.links.values():
            link.mode, link.delay_s, link.cut_after_bytes = Mode.PASS, 0.0, None


def start_linked(
    urls: tuple[str, str], storage: Callable[[str], StorageConfig], directory: StackDirectory, name: str
) -> Stack:
    """Starts a stack.

    Args:
        urls: of the broker, for the gateway and for the workers.
        storage: returns the storage configuration of a program, `gateway` or `workers`.
        directory: of the stack that it belongs to.
        name: of its own directory.
    """
    rabbitmq = {"ranges": FEW_RANGES, "heartbeat": HEARTBEAT_S}
    gateway_url, workers_url = urls
    stack = Stack(gateway_url, storage("gateway"), directory, {"rabbitmq": rabbitmq}, name)
    stack.start_workers(url=workers_url, storage_config=storage("workers"))
    stack.start_gateway(listen=stack.address)
    return stack


def over(link: Link, url: str) -> str:
    """Returns the URL of a server as it is reached over a link."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{link.port}")).geturl()


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


def check_black_hole_is_noticed(linked: LinkedStack, name: str) -> None:
    """Makes a link a black hole, and checks that its owner knows and no call hangs."""
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


def check_broken_link_is_made_again(linked: LinkedStack, name: str, break_all: Callable[[Link], int]) -> None:
    """Breaks the connections of a link three times, and checks that its owner notices and makes them again.

    Args:
        linked: the stack.
        name: of the link.
        break_all: breaks the connections of a link, and returns how many there were.
    """
    link = linked.links[name]
    with under_load(linked) as (_, stub):
        for _ in range(3):
            eventually(lambda: link.connection_count > 0, "there is a connection", RECOVERED_S)
            made_before = link.made_count
            assert break_all(link) > 0
            eventually(lambda made=made_before: _is_made_again(link, stub, made), "one is made again", RECOVERED_S)  # type: ignore[misc]  # mypy does not infer it
        # Of a database it need not be said: one that broke between two statements is replaced by the next statement.
        if name.endswith("to broker"):
            check_told(linked, name)


def check_link_that_breaks_after_some_bytes_is_made_again(linked: LinkedStack, name: str) -> None:
    """Cuts the connections of a link anywhere: in a handshake, in a statement, in a reply."""
    link = linked.links[name]
    cut_before = link.cut_count
    with under_load(linked) as (_, stub):
        for limit_bytes in (500, 3_000, 20_000, 100_000):
            link.cut_after_bytes = limit_bytes
            made_before = link.made_count
            for _ in range(5):
                _is_made_again(link, stub, made_before)
                time.sleep(0.1)
        assert link.cut_count > cut_before
        link.cut_after_bytes = None
        eventually(lambda: _is_made_again(link, stub, made_before), "one is made again", RECOVERED_S)
        check_told(linked, name)


def check_told(linked: LinkedStack, name: str) -> None:
    """Checks that the owner of a broken link has said so.

    A gateway need not say it of its database: a connection that broke while nobody read is replaced by the next read.
    """
    if name != "gateway to database":
        eventually(lambda: linked.told(name), "it is told in the log", NOTICED_S)


def _is_made_again(link: Link, stub: ProvenanceStorageStub, made_before: int) -> bool:
    # A gateway makes a connection to the database when it is asked something.
    outcome = outcome_of(stub.EntityGetAll(CONTENTS, timeout=5))
    assert outcome.code in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
    return link.made_count > made_before


def write_few(linked: LinkedStack, stub: ProvenanceStorageStub) -> Outcome:
    outcome = outcome_of(stub.ContentAdd(iter([contents(5)]), timeout=2))
    linked.checker.record(Call("content_add", ([entry_id(number) for number in range(5)],), outcome.ok, None))
    return outcome
