"""A stack that reaches its servers over links which a test breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import grpc

from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_stack.directory import StackDirectory
from provgate_stack.stack import Stack, StorageConfig
from tests.faults.checker import Call, Checker
from tests.faults.database_trouble import CONTENTS, FIND_FIRST, RECOVERED_S
from tests.faults.link import Link, Mode
from tests.faults.load import Load, check
from tests.fix_stack import FEW_RANGES
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

HEARTBEAT_S: Final = 2
STORAGE_TIMEOUT_S: Final = 3
NOTICED_S: Final = 20.0

# How each program tells that it has lost a server.
HEALTH: Final = {"broker": "provgate.broker", "database": "provgate.storage"}
SIGNS: Final = {"broker": "connection lost", "database": "the storage is in trouble"}


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


def write_few(linked: LinkedStack, stub: ProvenanceStorageStub) -> Outcome:
    outcome = outcome_of(stub.ContentAdd(iter([contents(5)]), timeout=2))
    linked.checker.record(Call("content_add", ([content_id(number) for number in range(5)],), outcome.ok, None))
    return outcome
