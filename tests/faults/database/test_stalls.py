"""An operation whose writes stall: its packages wait, are stored in the end, and hold up no other operation."""

from __future__ import annotations

import time
from typing import Final

import pytest

from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE
from provgate_broker.wire.package import NACK_HEADER, Nack
from provgate_stack.servers.postgresql import postgresql_storage
from tests.faults.outages import assert_idle
from tests.faults.postgresql import locked, make_rows_slow
from tests.faults.refusals import FIRST_BYTE
from tests.faults.system import RECOVERED_S, System
from tests.support.entries import encode_package
from tests.support.packages import DATE, AmqpSender, content_ids, content_queue, publish
from tests.support.programs import run_workers

pytestmark = pytest.mark.faults

# How long a write of another operation may take meanwhile: less than any limit that the stalled one runs into.
OTHERS_S: Final = 15.0
LIMIT_S: Final = 30.0


@pytest.fixture(autouse=True)
def set_up(system: System) -> None:
    """Queues and tables are there before the workers start."""
    assert run_workers(system.stack.config, "setup").returncode == 0


def write_directory(sender: AmqpSender, number: int) -> None:
    """Writes a directory, and fails if that takes longer than `OTHERS_S`."""
    body = encode_package([(b"%020d" % number, DATE)])
    began_at = time.monotonic()
    sender.replies_to(sender.publish("directory", "directory_add.unknown.0", body), timeout_s=4 * LIMIT_S)
    took_s = time.monotonic() - began_at
    assert took_s < OTHERS_S, f"a write of another operation took {took_s:.1f} s"


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("limits", [{"lock_timeout_s": LIMIT_S}, {"write_timeout_s": LIMIT_S, "lock_timeout_s": 300}])
def test_locked_tables_stop_no_writes_to_others(system: System, sender: AmqpSender, limits: dict[str, float]) -> None:
    configured = postgresql_storage(system.dsn, **limits)
    system.stack.start_workers(storage_config=configured, processes=1, storage_threads=1)
    ids = content_ids(400)
    with locked(system.dsn, "content", "revision"):
        sent = publish(sender, ids, package_size=10)
        sent.append(sender.publish("revision", "revision_add.unknown.0", encode_package([(b"r" * 20,)])))
        number = 0
        # Past the limit, and through a few tries after it.
        end_at = time.monotonic() + 3 * LIMIT_S
        while time.monotonic() < end_at:
            write_directory(sender, number)
            number += 1
        assert "timeout" in system.workers.log_path.read_text()
        assert not any(id in sender.replies for id in sent)
        assert_idle(system.stack, 3.0)
    # Nothing is given up, however long the operator took.
    sender.replies_to(*sent, timeout_s=RECOVERED_S)
    assert system.stored_count(ids) == len(ids)
    system.check_nothing_set_aside()


def test_a_batch_that_takes_too_long_is_stored_in_parts(system: System, sender: AmqpSender) -> None:
    make_rows_slow(system.dsn, 0.5)
    ids = content_ids(8, first_byte=FIRST_BYTE)
    # All of them wait before the first one is taken. Two rows take less than the limit, four take more.
    sent = publish(sender, ids, package_size=1)
    system.stack.start_workers(storage_config=postgresql_storage(system.dsn, write_timeout_s=1.8), processes=1)
    assert sender.replies_to(*sent, timeout_s=RECOVERED_S) == [1] * len(sent)
    assert system.stored_count(ids) == len(ids)


@pytest.mark.long
def test_a_package_that_takes_too_long_alone_stops_no_other_and_is_refused_in_the_end(
    system: System, sender: AmqpSender
) -> None:
    slow, *others = content_ids(200, first_byte=FIRST_BYTE)
    make_rows_slow(system.dsn, 60, f"NEW.id = '\\x{slow.hex()}'")
    nacked = sender.publish("content", content_queue(slow), encode_package([(slow, DATE)]), headers={NACK_HEADER: True})
    sent = publish(sender, others[:100], package_size=10)
    system.stack.start_workers(storage_config=postgresql_storage(system.dsn, write_timeout_s=1), processes=1)
    assert sender.replies_to(*sent, timeout_s=RECOVERED_S) == [10] * len(sent)
    # It is given up only while others of its operation are stored.
    remaining = iter(others[100:])

    def is_answered() -> bool:
        sender.replies_to(*publish(sender, [next(remaining, others[-1])]))
        return nacked in sender.replies

    sender.wait_until(is_answered, timeout_s=RECOVERED_S)
    (nack,) = sender.replies[nacked]
    assert isinstance(nack, Nack)
    assert (nack.error, "time limit" in nack.message) == ("unexpected", True)
    assert system.stored_count([slow]) == 0
    assert system.stored_count(others[:100]) == 100
    sender.wait_until(lambda: sender.message_count(DEAD_LETTER_QUEUE) == 1)
