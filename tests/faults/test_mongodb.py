"""MongoDB is killed, suspended, refuses connections, conflicts and runs out of space, while writes go on."""

from __future__ import annotations

import os
import secrets
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from provgate_client.errors import InvalidRequestError
from provgate_stack.processes.directory import StackDirectory
from provgate_stack.servers.mongodb import MongoDbServer, mongodb_storage
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack, StorageConfig
from tests.faults.database_trouble import (
    NOTICED_S,
    RECOVERED_S,
    assert_idle,
    assert_unavailable,
    line_count,
    reads,
    under_load,
    wait_for_trouble,
)
from tests.faults.dead_letters import FIRST_BYTE, assert_dead_letters
from tests.faults.load import Writing, check
from tests.faults.refused_starts import check_gateway_refuses, check_workers_refuse
from tests.faults.small_disk import small_tmpfs
from tests.support.broker import consumers, queue_names
from tests.support.entries import encode_package
from tests.support.fix_stack import FEW_RANGES
from tests.support.link import Link
from tests.support.loss_checker import Checker
from tests.support.packages import DATE, AmqpSender, content_ids, stored_count
from tests.support.programs import run_workers

pytestmark = pytest.mark.faults

Client = MongoClient[dict[str, Any]]

GOOD_COUNT: Final = 1_000
TIMEOUTS: Final = {"connect_timeout_s": 2, "write_timeout_s": 3, "read_timeout_s": 3, "stream_timeout_s": 3}

# WiredTiger makes log files of 10 MB, and one ahead.
DISK_SIZE: Final = "64m"


@contextmanager
def client_of(server: MongoDbServer) -> Iterator[Client]:
    """A client of the test's own."""
    with Client(server.url(), retryWrites=False, serverSelectionTimeoutMS=10_000) as client:
        yield client


@contextmanager
def failing(server: MongoDbServer, commands: Sequence[str], code: int, mode: object = "alwaysOn") -> Iterator[None]:
    """Has commands of the workers fail with an error code."""
    data = {"failCommands": list(commands), "errorCode": code, "appName": "provgate-workers"}
    with client_of(server) as client:
        client.admin.command("configureFailPoint", "failCommand", mode=mode, data=data)
        try:
            yield
        finally:
            client.admin.command("configureFailPoint", "failCommand", mode="off")


@pytest.mark.long
def test_nothing_spins_while_mongodb_is_away(
    small_mongodb_stack: Stack, mongodb_server: MongoDbServer, mongodb_config: StorageConfig, checker: Checker
) -> None:
    small_mongodb_stack.start()
    with under_load(small_mongodb_stack, checker, mongodb_config) as stub:
        mongodb_server.kill()
        try:
            assert_unavailable(small_mongodb_stack, stub)
            assert_idle(small_mongodb_stack, 15.0)
        finally:
            mongodb_server.start()


def test_a_killed_mongodb_is_waited_for(
    small_mongodb_stack: Stack, mongodb_server: MongoDbServer, mongodb_config: StorageConfig, checker: Checker
) -> None:
    small_mongodb_stack.start()
    with under_load(small_mongodb_stack, checker, mongodb_config) as stub:
        mongodb_server.kill()
        try:
            assert_unavailable(small_mongodb_stack, stub)
            wait_for_trouble(small_mongodb_stack, "refused")
        finally:
            mongodb_server.start()
    assert line_count(small_mongodb_stack.workers[0]) < 100


@pytest.mark.long
def test_a_suspended_mongodb_is_waited_for(
    broker_url: str,
    mongodb_server: MongoDbServer,
    mongodb_config: StorageConfig,
    stack_directory: StackDirectory,
    checker: Checker,
) -> None:
    name = f"faults-{secrets.token_hex(4)}"
    with stack_on(broker_url, {**mongodb_config, **TIMEOUTS}, stack_directory, name) as stack:
        stack.start()
        with under_load(stack, checker, mongodb_config) as stub:
            mongodb_server.suspend()
            try:
                assert_unavailable(stack, stub)
                wait_for_trouble(stack, "MongoDB")
                assert_idle(stack, 5.0)
            finally:
                mongodb_server.resume()


@contextmanager
def stack_on(url: str, storage_config: StorageConfig, directory: StackDirectory, name: str) -> Iterator[Stack]:
    stack = Stack(url, storage_config, directory, {"rabbitmq": {"ranges": FEW_RANGES}}, name)
    try:
        yield stack
    finally:
        stack.kill()


def test_write_conflicts_are_tried_again(
    small_mongodb_stack: Stack, mongodb_server: MongoDbServer, mongodb_config: StorageConfig, checker: Checker
) -> None:
    small_mongodb_stack.start()
    with under_load(small_mongodb_stack, checker, mongodb_config):
        # More than are tried again at once.
        with failing(mongodb_server, ["insert", "update"], 112, {"times": 30}):
            wait_for_trouble(small_mongodb_stack, "failpoint")
        said = small_mongodb_stack.workers[0].log_path.read_text()
        assert "StorageConflictError" in said


# A shutdown, and no majority.
@pytest.mark.long
@pytest.mark.parametrize("code", [91, 134])
def test_a_state_of_the_server_that_lasts_is_waited_for(
    small_mongodb_stack: Stack,
    mongodb_server: MongoDbServer,
    mongodb_config: StorageConfig,
    checker: Checker,
    code: int,
) -> None:
    small_mongodb_stack.start()
    with (
        under_load(small_mongodb_stack, checker, mongodb_config) as stub,
        # The probes too.
        failing(mongodb_server, ["insert", "update", "find"], code),
    ):
        wait_for_trouble(small_mongodb_stack, "failpoint")
        assert all(outcome.ok for outcome in reads(stub))
        assert_idle(small_mongodb_stack, 5.0)


@pytest.mark.long
def test_more_connections_than_mongodb_has_are_waited_for(
    broker_url: str,
    mongodb_server: MongoDbServer,
    mongodb_config: StorageConfig,
    stack_directory: StackDirectory,
    checker: Checker,
) -> None:
    name = f"faults-{secrets.token_hex(4)}"
    with Link("127.0.0.1", mongodb_server.port) as link:
        over = mongodb_server.url(f"{mongodb_config['db'].rpartition('/')[2]}?directConnection=true")
        linked = mongodb_storage(over.replace(f":{mongodb_server.port}/", f":{link.port}/"))
        with stack_on(broker_url, linked, stack_directory, name) as stack:
            stack.start()
            with under_load(stack, checker, mongodb_config) as stub, no_connection_left(mongodb_server, link):
                assert_unavailable(stack, stub)
                wait_for_trouble(stack, "MongoDB")
                assert_idle(stack, 5.0)


@contextmanager
def no_connection_left(server: MongoDbServer, link: Link) -> Iterator[None]:
    """Uses up the connections of a server, those over a link too. One too many is accepted, and closed unheard."""
    with ExitStack() as taken:
        take_all_connections(server, taken)
        deadline = time.monotonic() + NOTICED_S
        while link.connection_count:
            assert time.monotonic() < deadline, "the programs keep their connections"
            link.reset()
            take_all_connections(server, taken)
        yield


def take_all_connections(server: MongoDbServer, taken: ExitStack) -> None:
    poll = select.poll()
    while True:
        # Many at once: one that is taken says nothing, and waiting for that takes its time.
        for _ in range(20):
            made = taken.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            poll.register(made, select.POLLIN)
        if poll.poll(100):
            return


@pytest.mark.long
def test_a_full_disk_of_mongodb_is_waited_for(
    broker_url: str, stack_directory: StackDirectory, checker: Checker
) -> None:
    name = f"full-{secrets.token_hex(4)}"
    disk = stack_directory.outside_directory()
    with small_tmpfs(disk, DISK_SIZE):
        server = MongoDbServer(stack_directory, name, data=disk / "data")
        server.start()
        try:
            storage_config = server.storage_config("provenance")
            with stack_on(broker_url, storage_config, stack_directory, f"{name}-stack") as stack:
                stack.start()
                with under_load(stack, checker, storage_config) as stub:
                    make_room = fill(server, disk)
                    assert_unavailable(stack, stub)
                    wait_for_trouble(stack, "internal server error")
                    assert_idle(stack, 5.0)
                    make_room()
                    # Its WiredTiger has panicked, and says nothing else until it is started again, as an operator does.
                    server.kill()
                    server.start()
        finally:
            server.kill()


def fill(server: MongoDbServer, disk: Path) -> Callable[[], None]:
    """Takes all that is left, and the log that WiredTiger has made ahead. Returns what gives it back."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        free = os.statvfs(disk)
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_bsize)
    with client_of(server) as client, suppress(PyMongoError):
        while True:
            client.filler.pages.insert_many([{"page": os.urandom(7_000)} for _ in range(100)])
    return filler.unlink


@pytest.fixture
def sender(small_mongodb_stack: Stack, broker_url: str) -> Iterator[AmqpSender]:
    with AmqpSender(broker_url) as sender:
        yield sender


def test_only_what_mongodb_refuses_becomes_a_dead_letter(
    small_mongodb_stack: Stack,
    sender: AmqpSender,
    mongodb_server: MongoDbServer,
    mongodb_config: StorageConfig,
    mongodb_name: str,
    checker: Checker,
) -> None:
    small_mongodb_stack.start()
    refused, *good = content_ids(GOOD_COUNT + 1, first_byte=FIRST_BYTE)
    refuse(mongodb_server, mongodb_name, refused)
    with Writing(small_mongodb_stack.address, checker) as writing:
        begun = [writing.begin("content_add", dict.fromkeys(good[n::10], DATE)) for n in range(5)]
        bad = writing.begin("content_add", {refused: DATE})
        begun += [writing.begin("content_add", dict.fromkeys(good[n::10], DATE)) for n in range(5, 10)]
        error = bad.exception(RECOVERED_S)
        assert all(each.result(RECOVERED_S) for each in begun)
    assert isinstance(error, InvalidRequestError)
    assert error.status.reason == "PACKAGE_REFUSED"
    assert error.status.metadata["worker_reason"] == "refused"
    check(checker, mongodb_config)
    assert stored_count(mongodb_config, [refused, *good]) == GOOD_COUNT
    assert_dead_letters(sender, [encode_package([(refused, DATE)])], "refused", {0})


def refuse(server: MongoDbServer, name: str, id: bytes) -> None:
    """Has the database refuse a content that everything before it finds valid."""
    with client_of(server) as client:
        (found,) = client[name].list_collections(filter={"name": "content"})
        stricter = {"$and": [found["options"]["validator"], {"_id": {"$ne": id}}]}
        client[name].command("collMod", "content", validator=stricter)


def test_a_mongodb_schema_of_a_newer_program(
    small_mongodb_stack: Stack,
    broker_url: str,
    mongodb_server: MongoDbServer,
    mongodb_name: str,
    rabbitmq_node: RabbitMqNode,
) -> None:
    assert run_workers(small_mongodb_stack.config, "setup").returncode == 0
    queues = queue_names(rabbitmq_node, broker_url)
    with client_of(mongodb_server) as client:
        assert client[mongodb_name]["schema"].update_one({}, {"$inc": {"version": 1}}).modified_count == 1
    said = r"holds version 2 of the schema, newer than version 1 of this program: upgrade"
    check_workers_refuse(small_mongodb_stack.config, said, ("run", "setup"))
    check_gateway_refuses(small_mongodb_stack, said)
    assert queue_names(rabbitmq_node, broker_url) == queues
    assert not consumers(rabbitmq_node, broker_url)
