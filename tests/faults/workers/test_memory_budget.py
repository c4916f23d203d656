"""More packages than a worker program may hold, in many queues at once."""

from __future__ import annotations

import logging
from typing import Final

import psutil
import pytest

from provgate_broker.topology.policy import Exchange, Operation, RangePolicy, binding_key, operations_of
from provgate_stack.processes.programs import WorkerProgram
from tests.faults.footprint import MIB, Footprint
from tests.faults.postgresql import execute
from tests.faults.system import System
from tests.support.entries import encode_package
from tests.support.packages import DATE, AmqpSender
from tests.support.polling import eventually
from tests.support.watch_port import value

logger = logging.getLogger(__name__)

pytestmark = pytest.mark.faults

BOUND_BYTES: Final = 16 * MIB
PACKAGES_PER_QUEUE: Final = 10
PACKAGE_COUNT: Final = 80 * PACKAGES_PER_QUEUE

# What is in hand, and the rows of the batches that are decoded.
GROWTH_MAX_BYTES: Final = 512 * MIB

# So that packages come faster than they are stored.
TABLES: Final = ("content", "content_in_revision", "content_in_directory", "directory", "directory_in_revision")
SLOW_STATEMENTS: Final = """
    CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END $$;
    """ + ";".join(f"CREATE TRIGGER linger BEFORE INSERT ON {table} EXECUTE FUNCTION linger()" for table in TABLES)


def queues() -> list[tuple[Exchange, str, Operation]]:
    """Returns the 80 queues of contents and directories."""
    counts = RangePolicy().counts
    return [
        (exchange, binding_key(operation, number), operation)
        for exchange in (Exchange.CONTENT, Exchange.DIRECTORY)
        for operation in operations_of(exchange)
        for number in range(counts[exchange])
    ]


def package_of_a_mebibyte(operation: Operation, key: str) -> bytes:
    """Returns a package for a queue: one row again and again, which costs the database next to nothing."""
    id = bytes([int(key.rpartition(".")[2], 16) << 4]) * 20
    row = (id, DATE) if operation.relation is None else (id, b"d" * 20, b"p" * 1000)
    return encode_package([row] * (MIB // len(encode_package([row]))))


def memory_bytes(program: WorkerProgram) -> int:
    """Returns what the processes of a worker program take together."""
    return sum(Footprint.of(child.pid).memory_bytes for child in psutil.Process(program.pid).children())


# With the queues of 16 ranges.
@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("system", [{"ranges": {}}], indirect=True)
def test_packages_that_find_no_memory_come_again_once_and_are_stored(system: System) -> None:
    # With nothing to do; and then every package waits before the first one is taken.
    idle = system.stack.start_workers(max_in_hand_bytes=BOUND_BYTES, processes=1)
    before_bytes = peak_bytes = memory_bytes(idle)
    assert idle.terminate() == 0
    execute(system.dsn, SLOW_STATEMENTS)
    assert len(queues()) * PACKAGES_PER_QUEUE == PACKAGE_COUNT
    with AmqpSender(system.url) as sender:
        for exchange, key, operation in queues():
            for _ in range(PACKAGES_PER_QUEUE):
                sender.publish(exchange.value, key, package_of_a_mebibyte(operation, key))
        program = system.stack.start_workers(max_in_hand_bytes=BOUND_BYTES, processes=1)

        def all_are_stored() -> bool:
            nonlocal peak_bytes
            peak_bytes = max(peak_bytes, memory_bytes(program))
            return system.message_count() == 0

        eventually(all_are_stored, "all are stored", timeout_s=300)
    deliveries, redeliveries, quarantined = (
        value(program.metrics_address, f"provgate_workers_{name}_total")
        for name in ("deliveries", "redeliveries", "quarantined")
    )
    logger.info("%d packages: %d deliveries, of them %d redeliveries", PACKAGE_COUNT, deliveries, redeliveries)
    logger.info("idle %d MiB, at its peak %d MiB; %d quarantined", before_bytes / MIB, peak_bytes / MIB, quarantined)
    system.check_nothing_set_aside()
    assert quarantined == 0
    # Each is put back once at most.
    assert deliveries <= 2 * PACKAGE_COUNT
    assert peak_bytes - before_bytes < GROWTH_MAX_BYTES
