"""What is handled alone: when, and which package is taken for a killer."""

from __future__ import annotations

import pytest

from provgate_broker.dead_letters.messages import MESSAGE_HEADER, REASON_HEADER
from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE, QUARANTINE_QUEUE
from provgate_storage.errors import StorageFullError, StorageLockedError, StorageTimeoutError
from provgate_workers.consume.quarantine import CHECK_MAX_S
from tests.unit.workers.scenario import CONTENT_ADD, EARLY, Scenario, scenario

HOUR_S = 3600


def reasons(running: Scenario) -> list[str]:
    return [held.headers[REASON_HEADER] for held in running.broker.queues[DEAD_LETTER_QUEUE]]


def waiting_count(running: Scenario) -> int:
    return len(running.broker.queues[QUARANTINE_QUEUE])


def test_a_harmless_package_is_stored_and_one_that_was_tried_before_is_poison() -> None:
    with scenario() as running:
        harmless, tried = running.quarantine("a"), running.quarantine("b", delivery_count=1)
        running.work(CHECK_MAX_S)
        assert running.replies == {harmless: 1}
        assert (reasons(running), running.broker.dead_letters()) == (["poison"], {tried})


def test_it_is_taken_when_nothing_else_is_stored_and_nothing_is_stored_beside_it() -> None:
    with scenario() as running:
        running.send()
        running.quarantine("a")
        running.process.pass_time(CHECK_MAX_S)
        assert (running.process.batches, waiting_count(running)) == ([(CONTENT_ADD, [0])], 1)
        other = running.send(EARLY)
        running.store()
        # The package of the quarantine, before what waited for it.
        assert (len(running.process.batches), waiting_count(running)) == (1, 0)
        running.store()
        assert not running.is_stored(other)
        assert running.process.batches == [(EARLY, [0])]


def test_one_that_is_too_large_is_refused_before_it_is_decoded() -> None:
    with scenario(package_max_bytes=10_000) as running:
        running.quarantine("a", row_count=1000)
        running.work(CHECK_MAX_S)
        (letter,) = running.broker.queues[DEAD_LETTER_QUEUE]
        assert letter.headers[MESSAGE_HEADER] == "the body has 23009 bytes: more than package_max_bytes, 10000"
        assert running.storage.calls == []


def test_after_a_write_that_stalls_the_others_have_their_time() -> None:
    with scenario() as running:
        running.storage.failure = lambda _name, _rows: StorageLockedError("locked")
        running.quarantine("a")
        running.quarantine("b")
        running.work(CHECK_MAX_S)
        # It is back as a new copy, behind the other; none is taken for a minute.
        assert [held.number for held in running.broker.queues[QUARANTINE_QUEUE]] == [1, 0]
        calls = list(running.storage.calls)
        running.storage.failure = lambda _name, _rows: None
        running.work(45.0)
        assert running.storage.calls == calls
        assert running.process.report().storage_problem is None
        running.work(30.0)
        assert running.stored_count([0, 1]) == 2


@pytest.mark.parametrize("write_s", [10, 120])
def test_a_package_that_takes_too_long_each_time_holds_the_others_a_small_part_of_the_time(write_s: int) -> None:
    with scenario() as running:
        running.storage.failure = lambda _name, _rows: StorageTimeoutError("too long")
        running.quarantine("a")
        held_s = passed_s = 0
        while passed_s < HOUR_S:
            if running.process.job_count:
                running.process.pass_time(write_s)
                running.store()
                held_s += write_s
                passed_s += write_s
            else:
                running.process.pass_time(5.0)
                running.confirm()
                passed_s += 5
        assert 2 * write_s <= held_s <= 0.15 * HOUR_S


def test_a_batch_that_the_quarantine_waits_for_in_vain_holds_the_others_a_small_part_of_the_time() -> None:
    with scenario() as running:
        running.send()
        running.quarantine("a")
        held_s = 0
        for _ in range(0, HOUR_S, 5):
            running.process.pass_time(5.0)
            running.send(EARLY)
            if len(running.process.batches) == 1:
                held_s += 5
            else:
                running.store(1)
                running.confirm()
        assert 0 < held_s <= 0.15 * HOUR_S
        assert waiting_count(running) == 1


def test_a_package_that_this_process_survived_is_no_poison() -> None:
    with scenario() as running:
        packages = [running.quarantine("a"), running.quarantine("a", delivery_count=1)]
        running.work(CHECK_MAX_S)
        assert running.replies == dict.fromkeys(packages, 1)
        assert reasons(running) == []


def test_a_package_that_was_on_its_way_over_a_lost_connection_is_no_poison_once() -> None:
    with scenario() as running:
        running.broker.consumer.getter.loses_next = True
        on_its_way = running.quarantine("a")
        running.work(4 * CHECK_MAX_S)
        assert (running.is_stored(on_its_way), reasons(running)) == (True, [])
        running.quarantine("b", delivery_count=1)
        running.work(CHECK_MAX_S)
        assert reasons(running) == ["poison"]


def test_a_package_of_the_quarantine_is_tried_after_trouble_and_ends_it() -> None:
    with scenario() as running:
        running.storage.failure = lambda _name, _rows: StorageFullError("full")
        running.send()
        running.store()
        running.process.run(running.broker.lose_channels)
        running.broker.queues["content_add.unknown.0"].clear()
        quarantined = running.quarantine("a")
        running.process.pass_time(CHECK_MAX_S)
        assert waiting_count(running) == 1
        running.storage.failure = lambda _name, _rows: None
        running.work(2 * CHECK_MAX_S)
        assert running.is_stored(quarantined)
        assert running.process.report().storage_problem is None


def test_what_is_committed_and_not_answered_is_acked_when_the_process_ends() -> None:
    with scenario() as running:
        committed = running.quarantine("a")
        running.process.pass_time(CHECK_MAX_S)
        running.store()
        assert running.is_stored(committed)
        running.process.stop()
        running.process.pass_time(5.1)
        assert running.process.has_ended()
        assert (running.replies, running.broker.copies(committed)) == ({}, 0)


def test_one_that_is_not_settled_when_the_process_ends_stays_with_the_broker() -> None:
    with scenario(package_max_bytes=100) as running:
        refused = running.quarantine("a", row_count=10)
        running.process.pass_time(CHECK_MAX_S)
        running.process.stop()
        running.process.pass_time(5.1)
        # Its dead letter may not be safe.
        assert running.process.has_ended()
        assert (running.broker.acked_count, running.broker.copies(refused)) == (0, 1)


def test_none_is_taken_if_the_batch_that_it_waits_for_ends_in_trouble() -> None:
    with scenario() as running:
        running.send()
        running.quarantine("a")
        running.process.pass_time(CHECK_MAX_S)
        running.storage.failure = lambda _name, _rows: StorageFullError("full")
        running.store()
        assert waiting_count(running) == 1


def test_trouble_while_one_is_stored_stops_all_writes() -> None:
    with scenario() as running:
        running.storage.failure = lambda _name, _rows: StorageFullError("full")
        running.quarantine("a")
        running.process.pass_time(CHECK_MAX_S)
        running.store()
        assert running.process.report().storage_problem == "full"
        running.send()
        assert running.process.batches == []


def test_none_is_taken_while_an_operation_stalls() -> None:
    with scenario() as running:
        running.storage.failure = lambda name, _: StorageLockedError("locked") if name != "content" else None
        running.send(EARLY)
        running.work(1.0)
        quarantined = running.quarantine("a")
        running.work(3 * CHECK_MAX_S)
        assert waiting_count(running) == 1
        running.storage.failure = lambda _name, _rows: None
        running.work(3 * CHECK_MAX_S)
        assert running.is_stored(quarantined)
