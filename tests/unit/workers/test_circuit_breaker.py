"""A process whose storage fails recovers by itself, and gives its ranges up only if others may do better."""

from __future__ import annotations

from provgate_storage.errors import StorageFullError
from tests.unit.workers.scenario import EARLY, scenario
from tests.unit.workers.simulated_process import Trouble

PAUSE_LIMIT_S = 10.0


def test_trouble_of_one_write_stops_all_and_a_write_that_began_before_does_not_end_it() -> None:
    with scenario() as running:
        running.send()
        running.send(EARLY)
        running.storage.trouble = Trouble.AWAY
        running.store()
        running.storage.trouble = Trouble.NONE
        # The probe has been started, and the other batch ends before it.
        running.store()
        assert running.process.report().storage_problem == "away"
        assert running.value("storage_troubled_processes") == 1
        running.work(1.0)
        assert running.process.report().storage_problem is None
        assert running.stored_count([0, 1]) == 2


def test_a_single_write_is_tried_after_a_probe_and_lets_the_others_go_on() -> None:
    with scenario(storage_threads=4) as running:
        running.send()
        running.storage.trouble = Trouble.AWAY
        running.store()
        running.send(EARLY)
        running.storage.trouble = Trouble.NONE
        assert running.process.batches == []
        # Of two operations that wait, one is tried.
        running.store()
        assert len(running.process.batches) == 1
        running.store()
        assert len(running.process.batches) == 1
        running.work()
        assert running.stored_count([0, 1]) == 2


def test_a_write_that_fails_after_a_probe_stops_all_again() -> None:
    with scenario(pause_limit_s=PAUSE_LIMIT_S) as running:
        running.storage.failure = lambda _name, _rows: StorageFullError("full")
        number = running.send()
        running.work(5 * PAUSE_LIMIT_S)
        assert len(running.storage.calls) > 5
        assert running.process.report().storage_problem == "full"
        # A storage that answers and refuses is waited for.
        assert running.broker.consumer.is_consuming()
        running.storage.failure = lambda _name, _rows: None
        running.work(10.0)
        assert running.process.report().storage_problem is None
        assert running.is_stored(number)


def test_a_probe_is_enough_if_nothing_waits() -> None:
    with scenario() as running:
        running.storage.trouble = Trouble.AWAY
        running.send()
        running.store()
        running.process.run(running.broker.lose_channels)
        running.broker.queues["content_add.unknown.0"].clear()
        running.storage.trouble = Trouble.NONE
        running.work(10.0)
        assert running.process.report().storage_problem is None


def test_packages_that_go_elsewhere_meanwhile_do_not_hold_it_up() -> None:
    with scenario() as running:
        running.storage.failure = lambda _name, _rows: StorageFullError("full")
        running.send()
        running.work(5.0)
        assert running.process.report().storage_problem == "full"
        running.process.run(running.broker.lose_channels)
        running.broker.queues["content_add.unknown.0"].clear()
        running.work(10.0)
        assert running.process.report().storage_problem is None


def test_ranges_are_given_up_after_the_limit_and_taken_again_in_each_outage() -> None:
    with scenario(pause_limit_s=PAUSE_LIMIT_S) as running:
        for _ in range(2):
            running.storage.trouble = Trouble.AWAY
            number = running.send()
            running.work(PAUSE_LIMIT_S - 1.0)
            assert running.broker.consumer.is_consuming()
            running.work(2.0)
            assert not running.broker.consumer.is_consuming()
            # The packages are there for other programs.
            assert running.broker.unsettled_count == 0
            running.work(3 * PAUSE_LIMIT_S)
            assert not running.broker.consumer.is_consuming()
            running.storage.trouble = Trouble.NONE
            running.work(3 * PAUSE_LIMIT_S)
            assert running.broker.consumer.is_consuming()
            assert running.is_stored(number)
