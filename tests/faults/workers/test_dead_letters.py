"""Packages that nobody can store become dead letters; an operator lists, replays and drops them."""

from __future__ import annotations

import json
import struct
import subprocess
from typing import Any, Final

import psutil
import pytest

from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE
from provgate_broker.wire.package import NACK_HEADER, Nack
from provgate_stack.processes.process import ChildProgram
from provgate_stack.processes.programs import program_path
from tests.faults.postgresql import execute, make_rows_slow, query, refuse, rows_held
from tests.faults.refusals import FIRST_BYTE, check_dead_letters, check_one_refused
from tests.faults.system import RECOVERED_S, System
from tests.support.entries import encode_package
from tests.support.packages import DATE, AmqpSender, content_ids, content_queue, publish
from tests.support.polling import eventually

pytestmark = pytest.mark.faults

REFUSED: Final = b"\xab" * 20
GOOD: Final = b"\xac" * 20
ACCEPT: Final = "ALTER TABLE content DROP CONSTRAINT no_such_id"


GOOD_COUNT: Final = 1_000

MALFORMED: Final = {
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


@pytest.mark.parametrize("reason", ["malformed", "refused"])
def test_only_what_cannot_be_stored_becomes_a_dead_letter(system: System, sender: AmqpSender, reason: str) -> None:
    program = system.stack.start_workers()
    refused, *good = content_ids(GOOD_COUNT + 1, first_byte=FIRST_BYTE)
    refuse(system.dsn, refused)
    bodies = {"malformed": list(MALFORMED.values()), "refused": [encode_package([(refused, DATE)])]}[reason]
    every = GOOD_COUNT // len(bodies)
    sent: list[str] = []
    nacked: list[str] = []
    # The held row lets the others come together, so that each bad package is in a batch with good ones.
    with rows_held(system.dsn, good[:1]):
        for index, body in enumerate(bodies):
            sent += publish(sender, good[index * every :][: every // 2], package_size=1)
            nacked.append(sender.publish("content", content_queue(refused), body, headers={NACK_HEADER: True}))
            sent += publish(sender, good[index * every :][every // 2 : every], package_size=1)
        sent += publish(sender, good[len(bodies) * every :], package_size=1)
    assert sender.replies_to(*sent, timeout_s=RECOVERED_S) == [1] * GOOD_COUNT
    nacks = sender.replies_to(*nacked)
    assert all(isinstance(nack, Nack) and nack.error == reason for nack in nacks)
    assert system.stored_count([refused, *good]) == GOOD_COUNT
    check_dead_letters(system, bodies, reason, {0})
    assert program.terminate() == 0


def test_a_caller_of_the_gateway_is_told_of_a_refusal_and_others_are_not(system: System) -> None:
    system.start()
    refused, *good = content_ids(GOOD_COUNT + 1, first_byte=FIRST_BYTE)
    refuse(system.dsn, refused)
    check_one_refused(system, refused, good)


def test_a_package_that_kills_its_process_becomes_a_dead_letter(system: System, sender: AmqpSender) -> None:
    program = system.stack.start_workers(poison_after=1, processes=1)
    deadly, *harmless = content_ids(GOOD_COUNT + 1, first_byte=FIRST_BYTE)
    make_rows_slow(system.dsn, 60, f"NEW.id = '\\x{deadly.hex()}'")
    replied = publish(sender, harmless[::2], package_size=1)
    publish(sender, [deadly], package_size=1)
    replied += publish(sender, harmless[1::2], package_size=1)
    killed_count = 0

    def is_dead_letter() -> bool:
        """Kills the processes of the program whenever a write of theirs lingers."""
        nonlocal killed_count
        lingering = query(
            system.dsn,
            "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()",
        )
        if lingering:
            killed_count += 1
            for child in psutil.Process(program.pid).children():
                child.kill()
            for (pid,) in lingering:
                execute(system.dsn, f"SELECT pg_terminate_backend({pid}, 10000)")
        return bool(sender.message_count(DEAD_LETTER_QUEUE))

    sender.wait_until(is_dead_letter, timeout_s=2 * RECOVERED_S)
    # It is delivered three times, the third time alone in its batch, and then alone in its process.
    assert killed_count == 3
    assert sender.replies_to(*replied, timeout_s=RECOVERED_S) == [1] * GOOD_COUNT
    assert system.stored_count([deadly, *harmless]) == GOOD_COUNT
    check_dead_letters(system, [encode_package([(deadly, DATE)])], "poison", {0, 1, 2})


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
    system.stack.start_workers()
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
    system.stack.start_workers()
    sender.publish("content", content_queue(GOOD), b"garbage")
    wait_count(sender, 1)
    system.workers.terminate()
    kept = dlq(system, "replay", "--all", "--timeout", "1")
    assert kept.returncode == 1
    assert "no worker replied" in kept.stdout
    assert sender.message_count(DEAD_LETTER_QUEUE) == 1
