"""Programs that meet another topology, other range counts or another schema than theirs: they say so, and end.

The message says what differs and what to do, the exit code is 1, and nothing is left half-started.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pika
import psycopg2
import pytest

from provgate_stack.processes.directory import StackDirectory
from provgate_stack.processes.programs import GatewayProgram
from provgate_stack.servers.postgresql import PostgreSqlCluster, postgresql_storage
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack, StorageConfig
from tests.faults.refused_starts import check_gateway_refuses, check_workers_refuse
from tests.support.broker import consumers, queue_names
from tests.support.entries import encode_package
from tests.support.fix_stack import FEW_RANGES
from tests.support.gateway_calls import connected, health
from tests.support.link import Link, Mode
from tests.support.packages import DATE, AmqpSender
from tests.support.polling import eventually
from tests.support.programs import config_with, end_of, run_workers

pytestmark = pytest.mark.faults

QUEUE = "content_add.unknown.0"
RIGHT = {"x-queue-type": "quorum", "x-overflow": "reject-publish", "x-single-active-consumer": True}

# What a database may have become while a program does not look: the statement, and what is said of it.
NEWER_SCHEMA = ("UPDATE schema_version SET version = version + 1", r"newer than version \d+ of this program: upgrade")
OTHER_RANGES = (
    "UPDATE exchange_range SET range_count = 32 WHERE exchange = 'revision'",
    r"revision: 32 recorded, 1 configured\): configure every program alike, or change them with",
)


def execute(dsn: str, statement: str) -> None:
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.fixture
def set_up_stack(small_stack: Stack) -> Stack:
    """A stack whose topology and schema are there; nothing of it runs."""
    assert run_workers(small_stack.config, "setup").returncode == 0
    return small_stack


def with_ranges(
    stack: Stack, directory: StackDirectory, url: str, storage_config: StorageConfig, **ranges: int
) -> Stack:
    """Returns a stack on the same servers that is configured with other range counts."""
    overrides = {"rabbitmq": {"ranges": {**FEW_RANGES, **ranges}}}
    return Stack(url, storage_config, directory, overrides, f"{stack.path.name}-{secrets.token_hex(2)}")


@pytest.fixture
def sender(set_up_stack: Stack, broker_url: str) -> Iterator[AmqpSender]:
    with AmqpSender(broker_url) as sender:
        yield sender


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {**RIGHT, "x-single-active-consumer": False},
        {**RIGHT, "x-max-length-bytes": 1000},
        {**RIGHT, "x-overflow": "drop-head"},
    ],
    ids=["classic", "several consumers", "shorter", "drops"],
)
def test_a_queue_with_other_arguments(
    small_stack: Stack, broker_url: str, rabbitmq_node: RabbitMqNode, arguments: dict[str, Any]
) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        connection.channel().queue_declare(QUEUE, durable=True, arguments=arguments)
    said = f"queue {QUEUE} is on the broker with other properties .*: delete it once it is empty, or set"
    check_workers_refuse(small_stack.config, said, ("run", "setup"))
    assert queue_names(rabbitmq_node, broker_url) == {QUEUE}
    assert not consumers(rabbitmq_node, broker_url)


def test_an_exchange_of_another_type(small_stack: Stack, broker_url: str, rabbitmq_node: RabbitMqNode) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        connection.channel().exchange_declare("content", "fanout", durable=True)
    check_workers_refuse(small_stack.config, "exchange content is on the broker with other properties .*: delete it")
    assert not queue_names(rabbitmq_node, broker_url)


def test_the_range_count_changes_only_by_setup_and_never_under_packages(
    set_up_stack: Stack, sender: AmqpSender, tmp_path: Path, broker_url: str, rabbitmq_node: RabbitMqNode
) -> None:
    sender.publish("content", "content_add.unknown.3", encode_package([(b"\xff" * 20, DATE)]))
    queues = queue_names(rabbitmq_node, broker_url)
    config = config_with(set_up_stack, tmp_path, ranges={**FEW_RANGES, "content": 2})
    check_workers_refuse(config, r"ranges\.content is 2, and the database was set up with 4: set it to what")
    check_workers_refuse(
        config, r"queue content_add\.unknown\.3 holds 1 package and has .* let the workers drain it", ("setup",)
    )
    assert queue_names(rabbitmq_node, broker_url) == queues
    assert set(consumers(rabbitmq_node, broker_url)) == {sender.queue}
    sender.amqp_channel.queue_purge("content_add.unknown.3")
    assert run_workers(config, "setup").returncode == 0
    check_workers_refuse(
        set_up_stack.config, r"ranges\.content is 4, and the database was set up with 2: set it to what"
    )


def test_gateway_and_database_with_other_range_counts(
    set_up_stack: Stack, stack_directory: StackDirectory, broker_url: str, storage_config: StorageConfig
) -> None:
    stack = with_ranges(set_up_stack, stack_directory, broker_url, storage_config, revision=32)
    check_gateway_refuses(stack, r"revision: 1 recorded, 32 configured\): configure every program alike")


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (2, r"a queue content_add\.unknown\.2, but provenance\.rabbitmq\.ranges\.content is 2: set it to"),
        (8, r"no queue content_add\.unknown\.7: run `provgate-workers setup`, or set provenance\.rabbitmq\.ranges\."),
    ],
)
def test_gateway_and_queues_with_other_range_counts(
    set_up_stack: Stack, stack_directory: StackDirectory, broker_url: str, count: int, said: str
) -> None:
    # The database cannot be asked: nobody listens there.
    nowhere = postgresql_storage("host=127.0.0.1 port=1")
    stack = with_ranges(set_up_stack, stack_directory, broker_url, nowhere, content=count)
    check_gateway_refuses(stack, said)


def test_a_schema_of_a_newer_program(
    set_up_stack: Stack, broker_url: str, database_dsn: str, rabbitmq_node: RabbitMqNode
) -> None:
    statement, said = NEWER_SCHEMA
    queues = queue_names(rabbitmq_node, broker_url)
    execute(database_dsn, statement)
    check_workers_refuse(set_up_stack.config, said, ("run", "setup"))
    check_gateway_refuses(set_up_stack, said)
    assert queue_names(rabbitmq_node, broker_url) == queues
    assert not consumers(rabbitmq_node, broker_url)


def test_a_schema_of_a_newer_program_and_no_topology_yet(
    set_up_stack: Stack,
    database_dsn: str,
    storage_config: StorageConfig,
    rabbitmq_node: RabbitMqNode,
    stack_directory: StackDirectory,
) -> None:
    statement, said = NEWER_SCHEMA
    execute(database_dsn, statement)
    name = f"faults-{secrets.token_hex(4)}"
    rabbitmq_node.add_vhost(name)
    url = rabbitmq_node.url(name)
    check_workers_refuse(with_ranges(set_up_stack, stack_directory, url, storage_config).config, said, ("run", "setup"))
    assert not queue_names(rabbitmq_node, url)
    rabbitmq_node.delete_vhost(name)


@pytest.fixture
def link(postgres_cluster: PostgreSqlCluster) -> Iterator[Link]:
    """The link between a gateway and its database."""
    with Link("127.0.0.1", postgres_cluster.port) as link:
        yield link


@pytest.fixture
def start_linked(
    set_up_stack: Stack, link: Link, database_dsn: str, postgres_cluster: PostgreSqlCluster
) -> Callable[[], GatewayProgram]:
    """Starts a gateway that reaches its database over the link."""
    dsn = database_dsn.replace(f":{postgres_cluster.port}/", f":{link.port}/")
    return lambda: set_up_stack.start_gateway(storage_config=postgresql_storage(dsn))


def check_ends(program: GatewayProgram, said: str) -> None:
    code, log = end_of(program, timeout_s=60)
    assert code == 1
    assert re.search(said, log), log
    assert "Traceback" not in log


@pytest.mark.parametrize(("statement", "said"), [NEWER_SCHEMA, OTHER_RANGES], ids=["newer", "ranges"])
def test_a_database_that_comes_back_as_another_one(
    start_linked: Callable[[], GatewayProgram], link: Link, database_dsn: str, statement: str, said: str
) -> None:
    program = start_linked()
    with connected(program.address) as (channel, _):
        link.mode = Mode.REFUSE
        link.reset()
        eventually(lambda: health(channel, "provgate.storage") == "NOT_SERVING", "health knows", timeout_s=60)
        execute(database_dsn, statement)
        link.mode = Mode.PASS
    check_ends(program, said)


@pytest.mark.parametrize(("statement", "said"), [NEWER_SCHEMA, OTHER_RANGES], ids=["newer", "ranges"])
def test_a_database_that_was_away_at_the_start_and_is_another_one(
    start_linked: Callable[[], GatewayProgram], link: Link, database_dsn: str, statement: str, said: str
) -> None:
    link.mode = Mode.REFUSE
    # The queues agree with it: it takes writes meanwhile.
    program = start_linked()
    execute(database_dsn, statement)
    link.mode = Mode.PASS
    check_ends(program, said)


def test_a_database_that_comes_back_empty_is_waited_for(
    start_linked: Callable[[], GatewayProgram], link: Link, database_dsn: str
) -> None:
    program = start_linked()
    with connected(program.address) as (channel, _):
        link.mode = Mode.REFUSE
        link.reset()
        eventually(lambda: health(channel, "provgate.storage") == "NOT_SERVING", "health knows", timeout_s=60)
        execute(database_dsn, "ALTER TABLE schema_version RENAME TO elsewhere")
        link.mode = Mode.PASS
        eventually(lambda: "the database has no schema: run" in program.log_path.read_text(), "it says so", 60)
        assert health(channel, "provgate.storage") == "NOT_SERVING"
        execute(database_dsn, "ALTER TABLE elsewhere RENAME TO schema_version")
        eventually(lambda: health(channel, "provgate.storage") == "SERVING", "it goes on", timeout_s=60)
    assert program.terminate() == 0


def test_a_database_that_comes_back_as_it_was(start_linked: Callable[[], GatewayProgram], link: Link) -> None:
    link.mode = Mode.REFUSE
    program = start_linked()
    link.mode = Mode.PASS
    with connected(program.address):
        assert program.terminate() == 0
