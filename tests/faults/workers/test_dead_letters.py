"""`provgate-workers dlq` on real dead letters: what an operator sees of them and does with them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any, Final

import pytest

from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE
from provgate_stack.processes.process import ChildProgram
from provgate_stack.processes.programs import program_path
from tests.amqp_sender import AmqpSender
from tests.entries import encode_package
from tests.faults.packages import DATE, content_queue
from tests.faults.postgresql import execute, refuse, rows_held
from tests.faults.system import RECOVERED_S, System
from tests.integration.gateway_calls import eventually

pytestmark = pytest.mark.faults

REFUSED: Final = b"\xab" * 20
GOOD: Final = b"\xac" * 20
ACCEPT: Final = "ALTER TABLE content DROP CONSTRAINT no_such_id"


@pytest.fixture
def sender(system: System) -> Iterator[AmqpSender]:
    system.stack.start_workers()
    with AmqpSender(system.url) as sender:
        yield sender


def command(system: System, *arguments: str) -> list[str]:
    return [program_path("provgate-workers"), "dlq", *arguments, "--config", str(system.stack.config)]


def dlq(system: System, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(system, *arguments), capture_output=True, text=True, timeout=90, check=False)


def listed(system: System) -> dict[str, dict[str, Any]]:
    """Returns the dead letters by reason."""
    letters = [json.loads(line) for line in dlq(system, "list", "--json").stdout.splitlines()]
    return {letter["reason"]: letter for letter in letters}


def wait_count(sender: AmqpSender, count: int) -> None:
    sender.wait_until(lambda: sender.message_count(DEAD_LETTER_QUEUE) == count, RECOVERED_S)


def bury(system: System, sender: AmqpSender) -> None:
    """Makes a dead letter of two rows, of which the database refuses one for now."""
    refuse(system.dsn, REFUSED)
    sender.publish("content", content_queue(REFUSED), encode_package([(REFUSED, DATE), (GOOD, DATE)]))
    wait_count(sender, 1)


def test_they_are_listed_shown_replayed_and_dropped(system: System, sender: AmqpSender) -> None:
    bury(system, sender)
    sender.publish("content", content_queue(GOOD), b"garbage", headers={"note": "mine"})
    wait_count(sender, 2)
    letters = listed(system)
    assert set(letters) == {"refused", "malformed"}
    assert letters["refused"]["row_count"] == 2
    assert len(dlq(system, "list").stdout.splitlines()) == 2

    shown = json.loads(dlq(system, "show", letters["refused"]["id"][:12]).stdout)
    assert [row[0] for row in shown["rows"]] == [REFUSED.hex(), GOOD.hex()]
    shown = json.loads(dlq(system, "show", letters["malformed"]["id"]).stdout)
    assert (shown["body_hex"], shown["headers"]["note"]) == (b"garbage".hex(), "mine")

    again = dlq(system, "replay", "--all")
    assert (again.returncode, again.stdout.count("refused again")) == (1, 2)
    assert sender.message_count(DEAD_LETTER_QUEUE) == 2

    execute(system.dsn, ACCEPT)
    id = listed(system)["refused"]["id"]
    replayed = dlq(system, "replay", id)
    assert (replayed.returncode, replayed.stdout) == (0, f"stored {id}: 2 rows\n")
    assert system.stored_count([REFUSED, GOOD]) == 2

    assert dlq(system, "drop", "no-such-id").returncode == 1
    assert dlq(system, "drop").returncode == 2
    assert sender.message_count(DEAD_LETTER_QUEUE) == 1
    assert dlq(system, "drop", "--all").returncode == 0
    assert sender.message_count(DEAD_LETTER_QUEUE) == 0


def test_a_replayed_one_leaves_the_queue_after_its_commit_and_not_before(system: System, sender: AmqpSender) -> None:
    bury(system, sender)
    execute(system.dsn, ACCEPT)
    replay = ChildProgram(
        command(system, "replay", "--all"), system.stack.client_environment(), system.stack.path / "replay.log"
    )
    with rows_held(system.dsn, [REFUSED]) as held:
        replay.start()
        held.wait_waiting("INSERT")
        # The package, and the letter that it comes from.
        assert system.message_count() == 2
        replay.kill()
        wait_count(sender, 1)
    eventually(lambda: system.stored_count([REFUSED, GOOD]) == 2, "it is stored", RECOVERED_S)
    replay.start()
    replay.complete(RECOVERED_S)
    assert system.message_count() == 0


def test_one_that_nobody_answers_stays(system: System, sender: AmqpSender) -> None:
    sender.publish("content", content_queue(GOOD), b"garbage")
    wait_count(sender, 1)
    system.workers.terminate()
    kept = dlq(system, "replay", "--all", "--timeout", "1")
    assert kept.returncode == 1
    assert "no worker replied" in kept.stdout
    assert sender.message_count(DEAD_LETTER_QUEUE) == 1
