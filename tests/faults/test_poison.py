"""Packages that nobody can store, among a thousand that everybody can."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import closing

import psutil
import psycopg2
import pytest

from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE
from provgate_broker.wire.package import NACK_HEADER, Nack
from provgate_client.errors import InvalidRequestError
from provgate_stack.processes.programs import WorkerProgram
from provgate_stack.stack import Stack, StorageConfig
from tests.faults.dead_letters import FIRST_BYTE, assert_dead_letters
from tests.faults.held_writes import rows_held
from tests.faults.load import Writing, check
from tests.support.entries import encode_package
from tests.support.loss_checker import Checker
from tests.support.packages import DATE, AmqpSender, content_ids, content_queue, publish, stored_count

pytestmark = pytest.mark.faults

GOOD_COUNT = 1_000

MALFORMED = {
    "no msgpack": b"\xc1\xff\x00 not msgpack",
    "claims 2**32-1 elements": b"\x81\xa4data\xdd\xff\xff\xff\xff",
    "nests 100,000 deep": b"\x81\xa4data\x91" + b"\x91" * 100_000,
    "extra bytes": encode_package([(b"e" * 20, DATE)]) + b"\x00",
    "an unknown tag": b"\x81\xa4data\x91\x92\xc4\x14" + b"t" * 20 + b"\xc7\x01\x05\x00",
    "a date as text": encode_package([(b"d" * 20, "yesterday")]),
    "a huge timestamp": b"\x81\xa4data\x91\x92\xc4\x14" + b"h" * 20 + b"\xc7\x0c\xff" + struct.pack(">Iq", 0, 2**62),
    "an id of 3 bytes": encode_package([(b"abc", DATE)]),
    "empty": b"",
}


@pytest.fixture
def sender(small_stack: Stack, broker_url: str) -> Iterator[AmqpSender]:
    with AmqpSender(broker_url) as sender:
        yield sender


def run_sql(dsn: str, statement: str) -> None:
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '5s'")
        cursor.execute(statement)


def refuse(dsn: str, id: bytes) -> None:
    """Has the database refuse a content that everything before it finds valid."""
    run_sql(dsn, f"ALTER TABLE content ADD CONSTRAINT no_such_id CHECK (id <> '\\x{id.hex()}')")


@pytest.mark.parametrize("reason", ["malformed", "refused"])
def test_only_what_cannot_be_stored_becomes_a_dead_letter(
    small_stack: Stack, sender: AmqpSender, database_dsn: str, storage_config: StorageConfig, reason: str
) -> None:
    program = small_stack.start_workers()
    refused, *good = content_ids(GOOD_COUNT + 1, first_byte=FIRST_BYTE)
    refuse(database_dsn, refused)
    bodies = {"malformed": list(MALFORMED.values()), "refused": [encode_package([(refused, DATE)])]}[reason]
    every = GOOD_COUNT // len(bodies)
    sent: list[str] = []
    nacked: list[str] = []
    # What is held lets the others come together, so that each bad one is in a batch with good ones.
    with rows_held(database_dsn, good[:1]):
        for index, body in enumerate(bodies):
            sent += publish(sender, good[index * every :][: every // 2], package_size=1)
            nacked.append(sender.publish("content", content_queue(refused), body, headers={NACK_HEADER: True}))
            sent += publish(sender, good[index * every :][every // 2 : every], package_size=1)
        sent += publish(sender, good[len(bodies) * every :], package_size=1)
    assert sender.replies_to(*sent, timeout_s=60) == [1] * GOOD_COUNT
    nacks = sender.replies_to(*nacked)
    assert all(isinstance(nack, Nack) and nack.error == reason for nack in nacks)
    assert stored_count(storage_config, [refused, *good]) == GOOD_COUNT
    assert_dead_letters(sender, bodies, reason, {0})
    assert program.terminate() == 0


def test_a_caller_of_the_gateway_is_told_of_a_refusal_and_others_are_not(
    small_stack: Stack, sender: AmqpSender, database_dsn: str, storage_config: StorageConfig, checker: Checker
) -> None:
    small_stack.start()
    refused, *good = content_ids(GOOD_COUNT + 1, first_byte=FIRST_BYTE)
    refuse(database_dsn, refused)
    with Writing(small_stack.address, checker) as writing:
        begun = [writing.begin("content_add", dict.fromkeys(good[n::10], DATE)) for n in range(5)]
        bad = writing.begin("content_add", {refused: DATE})
        begun += [writing.begin("content_add", dict.fromkeys(good[n::10], DATE)) for n in range(5, 10)]
        error = bad.exception(60)
        assert all(each.result(60) for each in begun)
    assert isinstance(error, InvalidRequestError)
    assert error.status.reason == "PACKAGE_REFUSED"
    assert error.status.metadata["worker_reason"] == "refused"
    check(checker, storage_config)
    assert stored_count(storage_config, [refused, *good]) == GOOD_COUNT
    assert_dead_letters(sender, [encode_package([(refused, DATE)])], "refused", {0})


def test_a_package_that_kills_its_process_becomes_a_dead_letter(
    small_stack: Stack, sender: AmqpSender, database_dsn: str, storage_config: StorageConfig
) -> None:
    program = small_stack.start_workers(poison_after=1, processes=1)
    deadly, *harmless = content_ids(GOOD_COUNT + 1, first_byte=FIRST_BYTE)
    run_sql(
        database_dsn,
        f"""CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN IF NEW.id = '\\x{deadly.hex()}' THEN PERFORM pg_sleep(60); END IF; RETURN NEW; END $$;
            CREATE TRIGGER linger BEFORE INSERT ON content FOR EACH ROW EXECUTE FUNCTION linger()""",
    )
    replied = publish(sender, harmless[::2], package_size=1)
    publish(sender, [deadly], package_size=1)
    replied += publish(sender, harmless[1::2], package_size=1)
    # It is delivered three times, the third time alone in its batch, and then alone in its process.
    assert killed_count(program, database_dsn, lambda: bool(sender.message_count(DEAD_LETTER_QUEUE)), sender) == 3
    assert sender.replies_to(*replied, timeout_s=60) == [1] * GOOD_COUNT
    assert stored_count(storage_config, [deadly, *harmless]) == GOOD_COUNT
    assert_dead_letters(sender, [encode_package([(deadly, DATE)])], "poison", {0, 1, 2})


def killed_count(program: WorkerProgram, dsn: str, is_over: Callable[[], bool], sender: AmqpSender) -> int:
    """Kills the processes of a program whenever a write of theirs lingers, until it is over. Returns how often."""
    count = 0

    def over() -> bool:
        nonlocal count
        lingering = lingering_pids(dsn)
        if lingering:
            count += 1
            for child in psutil.Process(program.pid).children():
                child.kill()
            for pid in lingering:
                run_sql(dsn, f"SELECT pg_terminate_backend({pid}, 10000)")
        return is_over()

    sender.wait_until(over, timeout_s=90)
    return count


def lingering_pids(dsn: str) -> list[int]:
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()")
        return [pid for (pid,) in cursor.fetchall()]
