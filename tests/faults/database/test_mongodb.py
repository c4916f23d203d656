"""MongoDB is killed, suspended, refuses connections, conflicts and runs out of space, while writes go on."""

from __future__ import annotations

import os
import secrets
import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from provgate_stack.processes.directory import StackDirectory
from provgate_stack.processes.process import LOOPBACK
from provgate_stack.servers.mongodb import MongoDbServer, mongodb_storage
from provgate_stack.servers.rabbitmq import RabbitMqNode
from tests.faults.outages import assert_idle, assert_unavailable, line_count, wait_for_trouble
from tests.faults.postgresql import tmpfs
from tests.faults.refusals import FIRST_BYTE, check_gateway_refuses, check_one_refused, check_workers_refuse
from tests.faults.system import RECOVERED_S, System, over, reads, system_on
from tests.support.link import Link
from tests.support.packages import AmqpSender, content_ids, publish
from tests.support.programs import run_workers

pytestmark = pytest.mark.faults

Client = MongoClient[dict[str, Any]]

TIMEOUTS: Final = {"connect_timeout_s": 2, "write_timeout_s": 3, "read_timeout_s": 3, "stream_timeout_s": 3}


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


def database_name(system: System) -> str:
    return system.dsn.rpartition("/")[2]


@pytest.mark.long
def test_nothing_spins_while_mongodb_is_away(mongodb_system: System, mongodb_server: MongoDbServer) -> None:
    mongodb_system.start()
    with mongodb_system.under_load() as stub:
        mongodb_server.kill()
        try:
            assert_unavailable(mongodb_system.stack, stub)
            assert_idle(mongodb_system.stack, 15.0)
        finally:
            mongodb_server.start()


@pytest.mark.long
def test_a_killed_mongodb_is_waited_for(mongodb_system: System, mongodb_server: MongoDbServer) -> None:
    mongodb_system.start()
    with mongodb_system.under_load() as stub:
        mongodb_server.kill()
        try:
            assert_unavailable(mongodb_system.stack, stub)
            wait_for_trouble(mongodb_system.stack, "refused")
        finally:
            mongodb_server.start()
    assert line_count(mongodb_system.workers) < 100


@pytest.mark.long
def test_a_suspended_mongodb_is_waited_for(
    rabbitmq_node: RabbitMqNode, mongodb_server: MongoDbServer, stack_directory: StackDirectory
) -> None:
    storage_config = mongodb_server.storage_config(f"suspended_{secrets.token_hex(4)}")
    with system_on(rabbitmq_node, storage_config, stack_directory) as system:
        limited = {**storage_config, **TIMEOUTS}
        system.start({"storage_config": limited}, storage_config=limited)
        with system.under_load() as stub:
            mongodb_server.suspend()
            try:
                assert_unavailable(system.stack, stub)
                wait_for_trouble(system.stack, "MongoDB")
                assert_idle(system.stack, 5.0)
            finally:
                mongodb_server.resume()


def test_write_conflicts_are_tried_again(mongodb_system: System, mongodb_server: MongoDbServer) -> None:
    mongodb_system.start()
    with mongodb_system.under_load():
        # More than are tried again at once.
        with failing(mongodb_server, ["insert", "update"], 112, {"times": 30}):
            wait_for_trouble(mongodb_system.stack, "failpoint")
        assert "StorageConflictError" in mongodb_system.workers.log_path.read_text()


# A shutdown, and no majority.
@pytest.mark.long
@pytest.mark.parametrize("code", [91, 134])
def test_a_state_of_the_server_that_lasts_is_waited_for(
    mongodb_system: System, mongodb_server: MongoDbServer, code: int
) -> None:
    mongodb_system.start()
    with (
        mongodb_system.under_load() as stub,
        # The probes fail too.
        failing(mongodb_server, ["insert", "update", "find"], code),
    ):
        wait_for_trouble(mongodb_system.stack, "failpoint")
        assert all(outcome.ok for outcome in reads(stub))
        assert_idle(mongodb_system.stack, 5.0)


@pytest.mark.long
def test_more_connections_than_mongodb_has_are_waited_for(
    mongodb_system: System, mongodb_server: MongoDbServer
) -> None:
    with Link(LOOPBACK, mongodb_server.port) as link:
        url = mongodb_server.url(f"{database_name(mongodb_system)}?directConnection=true")
        linked = mongodb_storage(over(link, url))
        mongodb_system.start({"storage_config": linked}, storage_config=linked)
        with mongodb_system.under_load() as stub, no_connection_left(mongodb_server, link):
            assert_unavailable(mongodb_system.stack, stub)
            wait_for_trouble(mongodb_system.stack, "MongoDB")
            assert_idle(mongodb_system.stack, 5.0)
        mongodb_system.stack.kill()


@contextmanager
def no_connection_left(server: MongoDbServer, link: Link) -> Iterator[None]:
    """Uses up the connections of a server, and takes those over a link away from the programs."""
    with ExitStack() as opened:
        open_all_connections(server, opened)
        deadline = time.monotonic() + 60
        while link.connection_count:
            assert time.monotonic() < deadline, "the programs keep their connections"
            link.reset()
            open_all_connections(server, opened)
        yield


def open_all_connections(server: MongoDbServer, opened: ExitStack) -> None:
    poll = select.poll()
    while True:
        # One too many is accepted, and closed without a word. Many at once: to wait for that takes its time.
        for _ in range(20):
            made = opened.enter_context(socket.create_connection((LOOPBACK, server.port)))
            poll.register(made, select.POLLIN)
        if poll.poll(100):
            return


@pytest.mark.long
def test_a_full_disk_of_mongodb_is_waited_for(rabbitmq_node: RabbitMqNode, stack_directory: StackDirectory) -> None:
    disk = stack_directory.outside_directory()
    # WiredTiger makes log files of 10 MB, and one ahead.
    with tmpfs(disk, "64m", os.getuid(), os.getgid()):
        server = MongoDbServer(stack_directory, f"full-{secrets.token_hex(4)}", data=disk / "data")
        server.start()
        try:
            with system_on(rabbitmq_node, server.storage_config("provenance"), stack_directory) as system:
                system.start()
                with system.under_load() as stub:
                    filler = fill(server, disk)
                    assert_unavailable(system.stack, stub)
                    wait_for_trouble(system.stack, "internal server error")
                    assert_idle(system.stack, 5.0)
                    filler.unlink()
                    # WiredTiger has panicked, and answers nothing until an operator starts it again.
                    server.kill()
                    server.start()
        finally:
            server.kill()


def fill(server: MongoDbServer, disk: Path) -> Path:
    """Fills a disk, and the log that WiredTiger has made ahead. Returns the file whose removal gives it back."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        free = os.statvfs(disk)
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_bsize)
    with client_of(server) as client, suppress(PyMongoError):
        while True:
            client.filler.pages.insert_many([{"page": os.urandom(7_000)} for _ in range(100)])
    return filler


def test_only_what_mongodb_refuses_becomes_a_dead_letter(mongodb_system: System, mongodb_server: MongoDbServer) -> None:
    mongodb_system.start()
    refused, *good = content_ids(1_001, first_byte=FIRST_BYTE)
    with client_of(mongodb_server) as client:
        database = client[database_name(mongodb_system)]
        (found,) = database.list_collections(filter={"name": "content"})
        stricter = {"$and": [found["options"]["validator"], {"_id": {"$ne": refused}}]}
        database.command("collMod", "content", validator=stricter)
    check_one_refused(mongodb_system, refused, good)


def test_a_mongodb_schema_of_a_newer_program(mongodb_system: System, mongodb_server: MongoDbServer) -> None:
    assert run_workers(mongodb_system.stack.config, "setup").returncode == 0
    queues = mongodb_system.queue_names()
    with client_of(mongodb_server) as client:
        schema = client[database_name(mongodb_system)]["schema"]
        assert schema.update_one({}, {"$inc": {"version": 1}}).modified_count == 1
    said = r"holds version 2 of the schema, newer than version 1 of this program: upgrade"
    check_workers_refuse(mongodb_system.stack.config, said, ("run", "setup"))
    check_gateway_refuses(mongodb_system.stack, said)
    assert mongodb_system.queue_names() == queues
    assert not mongodb_system.consumers()


def test_a_batch_that_takes_mongodb_too_long_is_tried_again_in_parts(
    mongodb_system: System, mongodb_server: MongoDbServer
) -> None:
    mongodb_system.stack.start_workers(processes=1)
    ids = content_ids(100, first_byte=FIRST_BYTE)
    with AmqpSender(mongodb_system.url) as sender, failing(mongodb_server, ["insert"], 50, {"times": 3}):
        sent = publish(sender, ids, package_size=10)
        assert sender.replies_to(*sent, timeout_s=RECOVERED_S) == [10] * len(sent)
    assert "packages of content_add wait" in mongodb_system.workers.log_path.read_text()
    assert mongodb_system.stored_count(ids) == len(ids)
