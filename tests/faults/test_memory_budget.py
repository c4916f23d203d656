"""More packages than a worker program may hold, in many queues at once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import psutil
import psycopg2
import pytest

from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE, QUARANTINE_QUEUE
from provgate_broker.topology.policy import Exchange, Operation, RangePolicy, binding_key, operations_of
from provgate_stack.processes.directory import StackDirectory
from provgate_stack.processes.programs import WorkerProgram
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack, StorageConfig
from tests.faults.footprint import MIB, Footprint
from tests.support.broker import message_count
from tests.support.entries import encode_package
from tests.support.packages import AmqpSender
from tests.support.polling import eventually
from tests.support.watch_port import value

logger = logging.getLogger(__name__)

pytestmark = pytest.mark.faults

DATE = datetime(2020, 1, 2, tzinfo=UTC)
BOUND_BYTES = 16 * MIB
PACKAGES_PER_QUEUE = 10
PACKAGE_COUNT = 80 * PACKAGES_PER_QUEUE

# What is in hand, and the rows of the batches that are decoded.
GROWTH_MAX_BYTES = 512 * MIB


@pytest.fixture
def wide_stack(broker_url: str, storage_config: StorageConfig, stack_directory: StackDirectory) -> Iterator[Stack]:
    """A stack with the queues of 16 ranges."""
    stack = Stack(broker_url, storage_config, stack_directory, name="memory-budget")
    yield stack
    stack.kill()


def queues() -> list[tuple[Exchange, str, Operation]]:
    """Returns the 80 queues of contents and directories."""
    counts = RangePolicy().counts
    return [
        (exchange, binding_key(operation, number), operation)
        for exchange in (Exchange.CONTENT, Exchange.DIRECTORY)
        for operation in operations_of(exchange)
        for number in range(counts[exchange])
    ]


# So that packages come faster than they are stored.
SLOW_STATEMENTS = """
    CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END $$;
    CREATE TRIGGER linger BEFORE INSERT ON content EXECUTE FUNCTION linger();
    CREATE TRIGGER linger BEFORE INSERT ON content_in_revision EXECUTE FUNCTION linger();
    CREATE TRIGGER linger BEFORE INSERT ON content_in_directory EXECUTE FUNCTION linger();
    CREATE TRIGGER linger BEFORE INSERT ON directory EXECUTE FUNCTION linger();
    CREATE TRIGGER linger BEFORE INSERT ON directory_in_revision EXECUTE FUNCTION linger()"""


def package_of_a_mebibyte(operation: Operation, key: str) -> bytes:
    """Returns a package for a queue: one row again and again, which costs the database next to nothing."""
    id = bytes([int(key.rpartition(".")[2], 16) << 4]) * 20
    row = (id, DATE) if operation.relation is None else (id, b"d" * 20, b"p" * 1000)
    return encode_package([row] * (MIB // len(encode_package([row]))))


@pytest.mark.long
@pytest.mark.timeout(400)
def test_packages_that_find_no_memory_come_again_once_and_are_stored(
    wide_stack: Stack, broker_url: str, rabbitmq_node: RabbitMqNode, database_dsn: str
) -> None:
    # With nothing to do; and then every package waits before the first one is taken.
    idle = wide_stack.start_workers(max_in_hand_bytes=BOUND_BYTES, processes=1)
    before_bytes = memory_bytes(idle)
    assert idle.terminate() == 0
    with closing(psycopg2.connect(database_dsn)) as own, own, own.cursor() as cursor:
        cursor.execute(SLOW_STATEMENTS)
    assert len(queues()) * PACKAGES_PER_QUEUE == PACKAGE_COUNT
    with AmqpSender(broker_url) as sender:
        for exchange, key, operation in queues():
            for _ in range(PACKAGES_PER_QUEUE):
                sender.publish(exchange.value, key, package_of_a_mebibyte(operation, key))
        program = wide_stack.start_workers(max_in_hand_bytes=BOUND_BYTES, processes=1)
        peak_bytes = 0

        def all_are_gone() -> bool:
            nonlocal peak_bytes
            peak_bytes = max(peak_bytes, memory_bytes(program))
            return message_count(rabbitmq_node, broker_url) == 0

        eventually(all_are_gone, "all are stored", timeout_s=300)
        deliveries, redeliveries, quarantined = (
            value(program.metrics_address, f"provgate_workers_{name}_total")
            for name in ("deliveries", "redeliveries", "quarantined")
        )
        logger.info("%d packages: %d deliveries, of them %d redeliveries", PACKAGE_COUNT, deliveries, redeliveries)
        logger.info(
            "idle %d MiB, at its peak %d MiB; %d quarantined", before_bytes / MIB, peak_bytes / MIB, quarantined
        )
        assert sender.message_count(QUARANTINE_QUEUE) == sender.message_count(DEAD_LETTER_QUEUE) == 0
    assert quarantined == 0
    # Each is put back once at most.
    assert deliveries <= 2 * PACKAGE_COUNT
    assert peak_bytes - before_bytes < GROWTH_MAX_BYTES


def memory_bytes(program: WorkerProgram) -> int:
    """Returns what the processes of a worker program take together."""
    return sum(Footprint.of(child.pid).memory_bytes for child in psutil.Process(program.pid).children())
