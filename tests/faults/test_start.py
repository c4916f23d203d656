"""Programs that meet another topology, other range counts or another schema than theirs say so, and end.

The message says what differs and what to do, the exit code is 1, and nothing is left half-started.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import pika
import pytest

from provgate_stack.processes.directory import StackDirectory
from provgate_stack.processes.process import LOOPBACK
from provgate_stack.processes.programs import GatewayProgram
from provgate_stack.servers.postgresql import PostgreSqlCluster, postgresql_storage
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack, StorageConfig
from tests.faults.postgresql import execute
from tests.faults.refusals import check_gateway_refuses, check_workers_refuse
from tests.faults.system import RECOVERED_S, System, over, system_on
from tests.support.entries import encode_package
from tests.support.fix_stack import FEW_RANGES
from tests.support.gateway_calls import connected, health
from tests.support.link import Link, Mode
from tests.support.packages import DATE, AmqpSender
from tests.support.polling import eventually
from tests.support.programs import config_with, end_of, run_workers

pytestmark = pytest.mark.faults

QUEUE: Final = "content_add.unknown.0"
RIGHT: Final = {"x-queue-type": "quorum", "x-overflow": "reject-publish", "x-single-active-consumer": True}

# What a database may have become while no program watches: the statement, and the message.
NEWER_SCHEMA: Final = (
    "UPDATE schema_version SET version = version + 1",
    r"newer than version \d+ of this program: upgrade",
)
OTHER_RANGES: Final = (
    "UPDATE exchange_range SET range_count = 32 WHERE exchange = 'revision'",
    r"revision: 32 recorded, 1 configured\): configure every program alike, or change them with",
)
another_database = pytest.mark.parametrize(("statement", "said"), [NEWER_SCHEMA, OTHER_RANGES], ids=["newer", "ranges"])


@pytest.fixture
def set_up_system(system: System) -> System:
    """A system whose topology and schema are there; no program of it runs."""
    assert run_workers(system.stack.config, "setup").returncode == 0
    return system


@pytest.fixture(scope="module")
def shared_set_up_system(shared_system: System) -> System:
    """The same, for tests that change neither topology nor schema."""
    assert run_workers(shared_system.stack.config, "setup").returncode == 0
    return shared_system


def with_ranges(
    system: System, directory: StackDirectory, storage_config: StorageConfig | None = None, **ranges: int
) -> Stack:
    """Returns a stack on the same servers that is configured with other range counts."""
    overrides = {"rabbitmq": {"ranges": {**FEW_RANGES, **ranges}}}
    name = f"ranges-{secrets.token_hex(4)}"
    return Stack(system.url, storage_config or system.storage_config, directory, overrides, name)


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
def test_a_queue_with_other_arguments(system: System, arguments: dict[str, Any]) -> None:
    with pika.BlockingConnection(pika.URLParameters(system.url)) as connection:
        connection.channel().queue_declare(QUEUE, durable=True, arguments=arguments)
    said = f"queue {QUEUE} is on the broker with other properties .*: delete it once it is empty, or set"
    check_workers_refuse(system.stack.config, said, ("run", "setup"))
    assert system.queue_names() == {QUEUE}
    assert not system.consumers()


def test_an_exchange_of_another_type(system: System) -> None:
    with pika.BlockingConnection(pika.URLParameters(system.url)) as connection:
        connection.channel().exchange_declare("content", "fanout", durable=True)
    said = "exchange content is on the broker with other properties .*: delete it"
    check_workers_refuse(system.stack.config, said)
    assert not system.queue_names()


def test_the_range_count_changes_only_by_setup_and_never_under_packages(set_up_system: System, tmp_path: Path) -> None:
    with AmqpSender(set_up_system.url) as sender:
        sender.publish("content", "content_add.unknown.3", encode_package([(b"\xff" * 20, DATE)]))
        queues = set_up_system.queue_names()
        config = config_with(set_up_system.stack, tmp_path, ranges={**FEW_RANGES, "content": 2})
        check_workers_refuse(config, r"ranges\.content is 2, and the database was set up with 4: set it to what")
        check_workers_refuse(
            config, r"queue content_add\.unknown\.3 holds 1 package and has .* let the workers drain it", ("setup",)
        )
        assert set_up_system.queue_names() == queues
        assert set(set_up_system.consumers()) == {sender.queue}
        sender.amqp_channel.queue_purge("content_add.unknown.3")
    assert run_workers(config, "setup").returncode == 0
    said = r"ranges\.content is 4, and the database was set up with 2: set it to what"
    check_workers_refuse(set_up_system.stack.config, said)


def test_gateway_and_database_with_other_range_counts(
    shared_set_up_system: System, stack_directory: StackDirectory
) -> None:
    stack = with_ranges(shared_set_up_system, stack_directory, revision=32)
    check_gateway_refuses(stack, r"revision: 1 recorded, 32 configured\): configure every program alike")


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (2, r"a queue content_add\.unknown\.2, but provenance\.rabbitmq\.ranges\.content is 2: set it to"),
        (8, r"no queue content_add\.unknown\.7: run `provgate-workers setup`, or set provenance\.rabbitmq\.ranges\."),
    ],
)
def test_gateway_and_queues_with_other_range_counts(
    shared_set_up_system: System, stack_directory: StackDirectory, count: int, said: str
) -> None:
    # The database cannot be asked: nothing listens there.
    nowhere = postgresql_storage("host=127.0.0.1 port=1")
    check_gateway_refuses(with_ranges(shared_set_up_system, stack_directory, nowhere, content=count), said)


def test_a_schema_of_a_newer_program(
    set_up_system: System, rabbitmq_node: RabbitMqNode, stack_directory: StackDirectory
) -> None:
    statement, said = NEWER_SCHEMA
    queues = set_up_system.queue_names()
    execute(set_up_system.dsn, statement)
    check_workers_refuse(set_up_system.stack.config, said, ("run", "setup"))
    check_gateway_refuses(set_up_system.stack, said)
    assert set_up_system.queue_names() == queues
    assert not set_up_system.consumers()
    # The same before there is a topology.
    with system_on(rabbitmq_node, set_up_system.storage_config, stack_directory) as without_topology:
        check_workers_refuse(without_topology.stack.config, said, ("run", "setup"))
        assert not without_topology.queue_names()


@pytest.fixture
def link(postgres_cluster: PostgreSqlCluster) -> Iterator[Link]:
    """The link between a gateway and its database."""
    with Link(LOOPBACK, postgres_cluster.port) as link:
        yield link


def started_over(link: Link, system: System) -> GatewayProgram:
    """Starts a gateway that reaches its database over a link."""
    return system.stack.start_gateway(storage_config=postgresql_storage(over(link, system.dsn)))


@contextmanager
def database_away(link: Link, channel: grpc.Channel) -> Iterator[None]:
    """Has the database be out of reach, and the gateway know, for the block."""
    link.mode = Mode.REFUSE
    link.reset()
    eventually(lambda: health(channel, "provgate.storage") == "NOT_SERVING", "health knows", RECOVERED_S)
    yield
    link.mode = Mode.PASS


def check_ends(program: GatewayProgram, said: str) -> None:
    code, log = end_of(program, timeout_s=RECOVERED_S)
    assert code == 1
    assert re.search(said, log), log
    assert "Traceback" not in log


@another_database
def test_a_database_that_comes_back_as_another_one(
    set_up_system: System, link: Link, statement: str, said: str
) -> None:
    program = started_over(link, set_up_system)
    with connected(program.address) as (channel, _), database_away(link, channel):
        execute(set_up_system.dsn, statement)
    check_ends(program, said)


@another_database
def test_a_database_that_was_away_at_the_start_and_is_another_one(
    set_up_system: System, link: Link, statement: str, said: str
) -> None:
    link.mode = Mode.REFUSE
    # The queues agree with it: it takes writes meanwhile.
    program = started_over(link, set_up_system)
    execute(set_up_system.dsn, statement)
    link.mode = Mode.PASS
    check_ends(program, said)


def test_a_database_that_comes_back_empty_is_waited_for(set_up_system: System, link: Link) -> None:
    program = started_over(link, set_up_system)
    with connected(program.address) as (channel, _):
        with database_away(link, channel):
            execute(set_up_system.dsn, "ALTER TABLE schema_version RENAME TO elsewhere")
        said = "the database has no schema: run"
        eventually(lambda: said in program.log_path.read_text(), "it says so", RECOVERED_S)
        assert health(channel, "provgate.storage") == "NOT_SERVING"
        execute(set_up_system.dsn, "ALTER TABLE elsewhere RENAME TO schema_version")
        eventually(lambda: health(channel, "provgate.storage") == "SERVING", "it goes on", RECOVERED_S)
    assert program.terminate() == 0


def test_a_database_that_comes_back_as_it_was(shared_set_up_system: System, link: Link) -> None:
    link.mode = Mode.REFUSE
    program = started_over(link, shared_set_up_system)
    link.mode = Mode.PASS
    with connected(program.address):
        assert program.terminate() == 0
