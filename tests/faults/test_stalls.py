"""An operation whose writes stall: its packages wait, are stored in the end, and stop nobody else's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

import psycopg2
import pytest

from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE, QUARANTINE_QUEUE
from provgate_broker.wire.package import NACK_HEADER, Nack
from provgate_stack.servers.mongodb import MongoDbServer
from provgate_stack.servers.postgresql import postgresql_storage
from provgate_stack.stack import Stack, StorageConfig
from tests.faults.database_trouble import assert_idle
from tests.faults.test_mongodb import failing
from tests.support.entries import encode_package
from tests.support.packages import DATE, AmqpSender, content_ids, content_queue, publish, stored_count
from tests.support.programs import run_workers

pytestmark = pytest.mark.faults

FIRST_BYTE = 0x21
RECOVERED_S = 90.0

# How long a write of another operation may take meanwhile: less than any of the limits that the stalled one runs into.
OTHERS_S = 15.0
LIMIT_S = 30.0


@pytest.fixture
def sender(small_stack: Stack, broker_url: str) -> Iterator[AmqpSender]:
    """A sender, on queues and tables that are set up."""
    assert run_workers(small_stack.config, "setup").returncode == 0
    with AmqpSender(broker_url) as sender:
        yield sender


def execute(dsn: str, statement: str) -> None:
    with closing(psycopg2.connect(dsn)) as own, own, own.cursor() as cursor:
        cursor.execute(statement)


@contextmanager
def locked(dsn: str, *tables: str) -> Iterator[None]:
    """Holds tables as an operator does who changes them."""
    with closing(psycopg2.connect(dsn)) as other, other.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {', '.join(tables)} IN ACCESS EXCLUSIVE MODE")
        yield


def write_directories(sender: AmqpSender, number: int) -> None:
    """Writes a directory, and fails where that takes longer than `OTHERS_S`."""
    body = encode_package([(b"%020d" % number, DATE)])
    sent = sender.publish("directory", "directory_add.unknown.0", body)
    began_at = time.monotonic()
    sender.replies_to(sent, timeout_s=4 * LIMIT_S)
    took_s = time.monotonic() - began_at
    assert took_s < OTHERS_S, f"a write of another operation took {took_s:.1f} s"


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("limits", [{"lock_timeout_s": LIMIT_S}, {"write_timeout_s": LIMIT_S, "lock_timeout_s": 300}])
def test_locked_tables_stop_no_writes_to_others(
    small_stack: Stack, sender: AmqpSender, database_dsn: str, storage_config: StorageConfig, limits: dict[str, float]
) -> None:
    configured = postgresql_storage(database_dsn, **limits)
    small_stack.start_workers(storage_config=configured, processes=1, storage_threads=1)
    contents = content_ids(400)
    log = small_stack.workers[0].log_path
    with locked(database_dsn, "content", "revision"):
        sent = publish(sender, contents, package_size=10)
        sent.append(sender.publish("revision", "revision_add.unknown.0", encode_package([(b"r" * 20,)])))
        number = 0
        # Past the limit, and through a few tries after it.
        end_at = time.monotonic() + 3 * LIMIT_S
        while time.monotonic() < end_at:
            write_directories(sender, number)
            number += 1
        assert "timeout" in log.read_text()
        assert not any(id in sender.replies for id in sent)
        assert_idle(small_stack, 3.0)
    # Nothing is given up, however long the operator took.
    sender.replies_to(*sent, timeout_s=RECOVERED_S)
    assert stored_count(storage_config, contents) == len(contents)
    assert sender.message_count(DEAD_LETTER_QUEUE) == sender.message_count(QUARANTINE_QUEUE) == 0


def sleep_at(dsn: str, seconds: float, condition: str = "true") -> None:
    """Has each row of a content that meets a condition take so long."""
    execute(
        dsn,
        f"""CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN IF {condition} THEN PERFORM pg_sleep({seconds}); END IF; RETURN NEW; END $$;
            CREATE TRIGGER linger BEFORE INSERT ON content FOR EACH ROW EXECUTE FUNCTION linger()""",
    )


def test_a_batch_that_takes_too_long_is_stored_in_parts(
    small_stack: Stack, sender: AmqpSender, database_dsn: str, storage_config: StorageConfig
) -> None:
    sleep_at(database_dsn, 0.8)
    contents = content_ids(8, first_byte=FIRST_BYTE)
    # All of them wait before the first one is taken. Two rows take less than the limit, four take more.
    sent = publish(sender, contents, package_size=1)
    small_stack.start_workers(storage_config=postgresql_storage(database_dsn, write_timeout_s=3), processes=1)
    assert sender.replies_to(*sent, timeout_s=RECOVERED_S) == [1] * len(sent)
    assert stored_count(storage_config, contents) == len(contents)


@pytest.mark.long
def test_a_package_that_takes_too_long_alone_stops_no_other_and_is_refused_in_the_end(
    small_stack: Stack, sender: AmqpSender, database_dsn: str, storage_config: StorageConfig
) -> None:
    slow, *others = content_ids(200, first_byte=FIRST_BYTE)
    sleep_at(database_dsn, 60, f"NEW.id = '\\x{slow.hex()}'")
    nacked = sender.publish("content", content_queue(slow), encode_package([(slow, DATE)]), headers={NACK_HEADER: True})
    sent = publish(sender, others[:100], package_size=10)
    small_stack.start_workers(storage_config=postgresql_storage(database_dsn, write_timeout_s=1), processes=1)
    assert sender.replies_to(*sent, timeout_s=RECOVERED_S) == [10] * len(sent)
    # It is given up only while others of its kind are stored.
    remaining = iter(others[100:])

    def is_answered() -> bool:
        id = next(remaining, others[-1])
        sender.replies_to(*publish(sender, [id]))
        return nacked in sender.replies

    sender.wait_until(is_answered, timeout_s=RECOVERED_S)
    (nack,) = sender.replies[nacked]
    assert isinstance(nack, Nack)
    assert (nack.error, "time limit" in nack.message) == ("unexpected", True)
    assert stored_count(storage_config, [slow]) == 0
    assert stored_count(storage_config, others[:100]) == 100
    sender.wait_until(partial(lambda: sender.message_count(DEAD_LETTER_QUEUE) == 1))


def test_a_batch_that_takes_mongodb_too_long_is_tried_again_in_parts(
    small_mongodb_stack: Stack, broker_url: str, mongodb_server: MongoDbServer, mongodb_config: StorageConfig
) -> None:
    small_mongodb_stack.start_workers(processes=1)
    contents = content_ids(100, first_byte=FIRST_BYTE)
    with AmqpSender(broker_url) as sender, failing(mongodb_server, ["insert"], 50, {"times": 3}):
        sent = publish(sender, contents, package_size=10)
        assert sender.replies_to(*sent, timeout_s=RECOVERED_S) == [10] * len(sent)
    assert "packages of content_add wait" in small_mongodb_stack.workers[0].log_path.read_text()
    assert stored_count(mongodb_config, contents) == len(contents)
