"""Programs whose users have the rights of docs/operations.md and no others."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pika
import psycopg2
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker
from psycopg2.errors import InsufficientPrivilege
from psycopg2.extensions import make_dsn

from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE, QUARANTINE_QUEUE
from provgate_client.storage import ProvenanceStorageGrpc
from provgate_stack.processes.directory import StackDirectory
from provgate_stack.servers.postgresql import PostgreSqlCluster
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack
from provgate_storage import RelationData, RelationType, RevisionData
from tests.integration import least_rights
from tests.integration.least_rights import GATEWAY, OPERATOR, SETUP, WORKERS
from tests.support.entries import entry_id
from tests.support.packages import AmqpSender
from tests.support.polling import eventually
from tests.support.programs import run_workers

QUEUE = "content_add.unknown.0"
DATE = datetime(2005, 4, 7, 22, 13, 13, tzinfo=UTC)


@dataclass(frozen=True)
class Users:
    """A broker's virtual host and a database with the users of docs/operations.md.

    Attributes:
        stacks: a configuration for each user: a stack of which nothing runs.
        dsns: of the database, for each of its users.
        urls: of the virtual host, for each of its users.
        node, vhost: the broker.
    """

    stacks: dict[str, Stack]
    dsns: dict[str, str]
    urls: dict[str, str]
    node: RabbitMqNode
    vhost: str

    def grant(self, user: str, *rights: str) -> None:
        self.node.ctl("set_permissions", "-p", self.vhost, user, *rights)


@pytest.fixture(scope="module")
def users(
    rabbitmq_node: RabbitMqNode, postgres_cluster: PostgreSqlCluster, stack_directory: StackDirectory
) -> Iterator[Users]:
    """The users, with schema and topology made by the one who may."""
    name = f"least_{secrets.token_hex(4)}"
    rabbitmq_node.add_vhost(name)
    postgres_cluster.create_database(name)
    with (
        least_rights.broker_users(rabbitmq_node, name) as urls,
        least_rights.database_users(postgres_cluster, name) as storages,
    ):
        storages[OPERATOR] = storages[GATEWAY]
        stacks = {user: Stack(urls[user], storages[user], stack_directory, name=f"{name}-{user}") for user in urls}
        done = run_workers(stacks[SETUP].config, "setup")
        assert done.returncode == 0, done.stderr
        least_rights.grant_on_tables(postgres_cluster, name)
        dsns = {user: make_dsn(**storage["db"]) for user, storage in storages.items()}
        yield Users(stacks, dsns, urls, rabbitmq_node, name)
        for stack in stacks.values():
            stack.kill()
    postgres_cluster.drop_database(name)


@pytest.fixture(scope="module")
def gateway(users: Users) -> Stack:
    """The gateway's stack; gateway and workers run."""
    users.stacks[WORKERS].start_workers()
    stack = users.stacks[GATEWAY]
    stack.start_gateway(listen=stack.address)
    return stack


def test_everything_is_written_and_read(gateway: Stack) -> None:
    content, directory, revision, origin = (bytes([number]) * 20 for number in range(1, 5))
    with ProvenanceStorageGrpc(url=gateway.address, raise_on_failure=True) as storage:
        # All in one range, and more than an INSERT takes: they go through a temporary table.
        assert storage.content_add({entry_id(number, first_byte=0): DATE for number in range(20_000)})
        for add in (storage.content_add, storage.content_add):
            assert add({content: DATE})
        assert storage.directory_add({directory: DATE})
        assert storage.location_add([b"a/b"])
        assert storage.origin_add({origin: "https://example.org/"})
        for origin_id in (None, origin):
            assert storage.revision_add({revision: RevisionData(DATE, origin_id)})
        for relation in RelationType:
            assert storage.relation_add(
                relation, {content: {RelationData(revision, b"a" if relation.has_path else None)}}
            )
        first = storage.content_find_first(content)
        assert first is not None
        assert first.origin == "https://example.org/"
        assert len(storage.entity_get_all(RelationType.CNT_EARLY_IN_REV.source)) > 20_000


FORBIDDEN_SQL = {
    GATEWAY: [
        "INSERT INTO content VALUES ('x')",
        "UPDATE content SET date = NULL",
        "DELETE FROM content",
        "TRUNCATE content",
        "CREATE TABLE mine ()",
        "CREATE TEMPORARY TABLE mine ()",
        "UPDATE schema_version SET version = 0",
        "DROP TABLE content",
    ],
    WORKERS: [
        "DELETE FROM content",
        "TRUNCATE content",
        "DROP TABLE content",
        "ALTER TABLE content ADD COLUMN mine text",
        "CREATE TABLE mine ()",
        "UPDATE schema_version SET version = 0",
        "INSERT INTO exchange_range VALUES ('mine', 1)",
        "UPDATE content_in_revision SET path = ''",
        "UPDATE origin SET url = ''",
        "UPDATE location SET path = ''",
    ],
    SETUP: ["CREATE DATABASE mine", "CREATE ROLE mine", "CREATE SCHEMA mine", "CREATE TEMPORARY TABLE mine ()"],
}


@pytest.mark.parametrize("user", FORBIDDEN_SQL)
def test_the_database_refuses(users: Users, user: str) -> None:
    with closing(psycopg2.connect(users.dsns[user])) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        for statement in FORBIDDEN_SQL[user]:
            with pytest.raises(InsufficientPrivilege):
                cursor.execute(statement)


Attempt = Callable[[BlockingChannel], object]


def publish(exchange: str, routing_key: str) -> Attempt:
    def do(channel: BlockingChannel) -> None:
        channel.confirm_delivery()
        channel.basic_publish(exchange, routing_key, b"")

    return do


ATTEMPTS: dict[str, Attempt] = {
    "publish to the default exchange": publish("", QUEUE),
    "publish to another exchange": publish("amq.direct", QUEUE),
    "publish to an exchange": publish("content", QUEUE),
    "declare a queue": lambda channel: channel.queue_declare("mine"),
    "declare a reply queue": lambda channel: channel.queue_declare("", exclusive=True),
    "declare an exchange": lambda channel: channel.exchange_declare("mine"),
    "delete an exchange": lambda channel: channel.exchange_delete("content"),
    "delete a work queue": lambda channel: channel.queue_delete(QUEUE),
    "purge a work queue": lambda channel: channel.queue_purge(QUEUE),
    "take from a work queue": lambda channel: channel.basic_get(QUEUE),
    "take from the dead letters": lambda channel: channel.basic_get(DEAD_LETTER_QUEUE),
    "take from quarantine": lambda channel: channel.basic_get(QUARANTINE_QUEUE),
    "bind a work queue": lambda channel: channel.queue_bind(QUEUE, "content", "mine"),
}

ALLOWED_AMQP = {
    GATEWAY: {"publish to an exchange", "declare a reply queue"},
    # To purge a queue the broker asks for no more than to consume it.
    WORKERS: {
        "publish to the default exchange",
        "take from a work queue",
        "take from quarantine",
        "purge a work queue",
    },
    OPERATOR: {"publish to an exchange", "declare a reply queue", "take from the dead letters"},
    SETUP: {"delete an exchange", "delete a work queue", "bind a work queue"},
}


@pytest.mark.parametrize("user", ALLOWED_AMQP)
def test_the_broker_refuses(users: Users, user: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(users.urls[user])) as connection:
        for what, attempt in ATTEMPTS.items():
            if what not in ALLOWED_AMQP[user]:
                with pytest.raises(ChannelClosedByBroker) as raised:
                    attempt(connection.channel())
                assert raised.value.reply_code == 403, what


def test_every_right_of_the_gateway_is_needed(users: Users) -> None:
    configure, write, read = least_rights.permissions()[GATEWAY]
    stack = users.stacks[GATEWAY]
    for rights in (("^$", write, read), (configure, "^$", read), (configure, write, "^$")):
        users.grant(GATEWAY, *rights)
        program = stack.start_gateway()
        try:
            with ProvenanceStorageGrpc(url=program.address, write_timeout_s=2, retry_time_s=1) as storage:
                assert not storage.content_add([bytes(20)])
            assert "ACCESS_REFUSED" in program.log_path.read_text("utf-8"), rights
        finally:
            program.kill()
            users.grant(GATEWAY, configure, write, read)


def wait_refused(log: Path) -> None:
    eventually(lambda: "ACCESS_REFUSED" in log.read_text("utf-8"), f"{log} says that access is refused", 20)


def test_every_right_of_the_workers_is_needed(users: Users, gateway: Stack) -> None:
    configure, write, read = least_rights.permissions()[WORKERS]
    stack = users.stacks[WORKERS]
    # What a connection was once allowed the broker remembers for it.
    stack.stop()
    for rights in ((configure, "^$", read), (configure, write, "^$")):
        users.grant(WORKERS, *rights)
        program = stack.start_workers(wait=False)
        try:
            with AmqpSender(users.urls[OPERATOR]) as sender:
                sender.publish("content", QUEUE, b"no package")
            wait_refused(program.log_path)
        finally:
            program.kill()
            users.grant(WORKERS, configure, write, read)
    stack.start_workers()


def test_dead_letters_are_for_the_operator(users: Users, gateway: Stack) -> None:
    with AmqpSender(users.urls[OPERATOR]) as sender:
        sender.publish("content", QUEUE, b"no package either")
    config = users.stacks[OPERATOR].config

    def listed() -> str:
        done = run_workers(config, "dlq", "list", "--json")
        assert done.returncode == 0, done.stderr
        return done.stdout

    eventually(lambda: "malformed" in listed(), "there is a dead letter", 20)
    assert "refused again" in run_workers(config, "dlq", "replay", "--all").stdout
    assert run_workers(config, "dlq", "drop", "--all").returncode == 0
    assert listed() == ""


def test_workers_without_the_right_to_declare_wait_for_what_is_missing(users: Users) -> None:
    done = run_workers(users.stacks[WORKERS].config, "setup")
    assert done.returncode == 1
    assert "may not declare exchange content: run `provgate-workers setup` as a user that may" in done.stderr
    assert "Traceback" not in done.stderr
    queue = "location_add.unknown.7"
    with pika.BlockingConnection(pika.URLParameters(users.urls[SETUP])) as connection:
        connection.channel().queue_delete(queue)
    said = f"on the broker queue {queue} cannot be used: run `provgate-workers setup` as a user that may"
    program = users.stacks[WORKERS].start_workers(wait=False)
    try:
        eventually(lambda: said in program.log_path.read_text("utf-8"), "it says what it waits for", 60)
        assert program.alive
    finally:
        assert run_workers(users.stacks[SETUP].config, "setup").returncode == 0
    program.wait_ready()
    assert program.terminate() == 0


def test_a_right_that_workers_lose_is_waited_for(
    users: Users, gateway: Stack, postgres_cluster: PostgreSqlCluster
) -> None:
    program = next(program for program in users.stacks[WORKERS].workers if program.alive)
    logged_before = program.log_path.read_text("utf-8").count("storage.stall")

    def said() -> list[str]:
        lines = [line for line in program.log_path.read_text("utf-8").splitlines() if "storage.stall" in line]
        return lines[logged_before:]

    dsn = postgres_cluster.dsn(users.vhost)
    least_rights.execute(dsn, f"REVOKE INSERT ON content FROM {WORKERS}")
    try:
        with (
            ProvenanceStorageGrpc(url=gateway.address, raise_on_failure=True) as storage,
            ThreadPoolExecutor(1) as pool,
        ):
            written = pool.submit(storage.content_add, [b"\x77" * 20])
            eventually(lambda: bool(said()) or not program.alive, "the workers say what they lack", 20)
            assert program.alive, program.log_path.read_text("utf-8").splitlines()[-2:]
            assert "permission denied for table content" in said()[0]
            assert not written.done()
            least_rights.execute(dsn, f"GRANT INSERT ON content TO {WORKERS}")
            assert written.result(timeout=30)
    finally:
        least_rights.execute(dsn, f"GRANT INSERT ON content TO {WORKERS}")
    eventually(lambda: "are stored again" in said()[-1], "the log says that it goes on")
