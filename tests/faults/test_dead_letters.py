"""`provgate-workers dlq` on real dead letters: what an operator sees of them and does with them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE
from provgate_stack.processes.process import ChildProgram
from provgate_stack.processes.programs import program_path
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack, StorageConfig
from tests.faults.held_writes import rows_held
from tests.support.broker import message_count
from tests.support.entries import encode_package
from tests.support.packages import DATE, AmqpSender, content_queue, stored_count
from tests.support.polling import eventually

pytestmark = pytest.mark.faults

REFUSED, GOOD = b"\xab" * 20, b"\xac" * 20


@pytest.fixture
def sender(small_stack: Stack, broker_url: str) -> Iterator[AmqpSender]:
    small_stack.start_workers()
    with AmqpSender(broker_url) as sender:
        yield sender


def dlq(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [program_path("provgate-workers"), "dlq", *arguments, "--config", str(stack.config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)


def listed(stack: Stack) -> dict[str, dict[str, Any]]:
    """Returns the dead letters by reason."""
    letters = [json.loads(line) for line in dlq(stack, "list", "--json").stdout.splitlines()]
    return {letter["reason"]: letter for letter in letters}


def run_sql(dsn: str, statement: str) -> None:
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)


def refuse(dsn: str) -> None:
    run_sql(dsn, f"ALTER TABLE content ADD CONSTRAINT no_such_id CHECK (id <> '\\x{REFUSED.hex()}')")


def accept(dsn: str) -> None:
    run_sql(dsn, "ALTER TABLE content DROP CONSTRAINT no_such_id")


def bury(sender: AmqpSender, dsn: str) -> None:
    """Makes a dead letter of two rows, of which the database refuses one for now."""
    refuse(dsn)
    sender.publish("content", content_queue(REFUSED), encode_package([(REFUSED, DATE), (GOOD, DATE)]))
    sender.wait_until(lambda: sender.message_count(DEAD_LETTER_QUEUE) == 1)


def test_they_are_listed_shown_replayed_and_dropped(
    small_stack: Stack, sender: AmqpSender, database_dsn: str, storage_config: StorageConfig
) -> None:
    bury(sender, database_dsn)
    sender.publish("content", content_queue(GOOD), b"garbage", headers={"note": "mine"})
    sender.wait_until(lambda: sender.message_count(DEAD_LETTER_QUEUE) == 2)
    letters = listed(small_stack)
    assert set(letters) == {"refused", "malformed"}
    assert letters["refused"]["row_count"] == 2
    assert len(dlq(small_stack, "list").stdout.splitlines()) == 2

    shown = json.loads(dlq(small_stack, "show", letters["refused"]["id"][:12]).stdout)
    assert [row[0] for row in shown["rows"]] == [REFUSED.hex(), GOOD.hex()]
    shown = json.loads(dlq(small_stack, "show", letters["malformed"]["id"]).stdout)
    assert (shown["body_hex"], shown["headers"]["note"]) == (b"garbage".hex(), "mine")

    again = dlq(small_stack, "replay", "--all")
    assert (again.returncode, again.stdout.count("refused again")) == (1, 2)
    assert sender.message_count(DEAD_LETTER_QUEUE) == 2

    accept(database_dsn)
    id = listed(small_stack)["refused"]["id"]
    replayed = dlq(small_stack, "replay", id)
    assert (replayed.returncode, replayed.stdout) == (0, f"stored {id}: 2 rows\n")
    assert stored_count(storage_config, [REFUSED, GOOD]) == 2

    assert dlq(small_stack, "drop", "no-such-id").returncode == 1
    assert dlq(small_stack, "drop").returncode == 2
    assert sender.message_count(DEAD_LETTER_QUEUE) == 1
    assert dlq(small_stack, "drop", "--all").returncode == 0
    assert sender.message_count(DEAD_LETTER_QUEUE) == 0


def test_a_replayed_one_leaves_the_queue_after_its_commit_and_not_before(
    small_stack: Stack,
    sender: AmqpSender,
    rabbitmq_node: RabbitMqNode,
    broker_url: str,
    database_dsn: str,
    storage_config: StorageConfig,
) -> None:
    bury(sender, database_dsn)
    accept(database_dsn)
    command = [program_path("provgate-workers"), "dlq", "replay", "--all", "--config", str(small_stack.config)]
    replay = ChildProgram(command, small_stack.client_environment(), small_stack.path / "replay.log")
    with rows_held(database_dsn, [REFUSED]) as held:
        replay.start()
        held.wait_waiting("INSERT")
        # The package and the letter that it is of.
        assert message_count(rabbitmq_node, broker_url) == 2
        replay.kill()
        sender.wait_until(lambda: sender.message_count(DEAD_LETTER_QUEUE) == 1)
    eventually(lambda: stored_count(storage_config, [REFUSED, GOOD]) == 2, "it is stored", 60)
    replay.start()
    replay.complete(60)
    assert message_count(rabbitmq_node, broker_url) == 0


def test_one_that_nobody_answers_stays(small_stack: Stack, sender: AmqpSender) -> None:
    sender.publish("content", content_queue(GOOD), b"garbage")
    sender.wait_until(lambda: sender.message_count(DEAD_LETTER_QUEUE) == 1)
    small_stack.workers[0].terminate()
    kept = dlq(small_stack, "replay", "--all", "--timeout", "1")
    assert kept.returncode == 1
    assert "no worker replied" in kept.stdout
    assert sender.message_count(DEAD_LETTER_QUEUE) == 1
