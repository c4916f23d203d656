"""A process of range workers, whole: no package is acked before it is stored or its copy is safe, whatever happens."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from provgate_broker.errors import MalformedPackageError
from provgate_broker.publish.publisher import Message
from provgate_broker.topology.declaration import QUARANTINE_QUEUE
from provgate_broker.topology.policy import OPERATIONS, Operation, WriteMethod, binding_key, exchange_of
from provgate_broker.wire.package import NACK_HEADER, Nack, decode_reply
from provgate_storage.errors import SchemaMismatchError
from provgate_storage.model import RevisionData
from provgate_workers.settle.outbox import Outbox
from tests.support.entries import Entry, decode_entries, encode_package
from tests.unit.workers.scenario import CONTENT_ADD, DIRECTORY_ADD, Scenario, scenario
from tests.unit.workers.simulated_broker import NUMBER_HEADER, Held, SimulatedBroker
from tests.unit.workers.simulated_process import (
    REFUSED_ID,
    UNEXPECTED_ID,
    SimulatedProcess,
    SimulatedStorage,
    Trouble,
    holds,
    many_timeouts,
)

IDS = st.sampled_from([bytes([number]) * 20 for number in range(6)])
BAD_IDS = st.sampled_from([REFUSED_ID, UNEXPECTED_ID])
DATES = st.none() | st.integers(1, 28).map(lambda day: datetime(2020, 1, day, tzinfo=UTC))
PATHS = st.sampled_from([b"", b"a", b"b" * 90])
ORIGIN = b"o" * 20


def entries_of(operation: Operation, ids: st.SearchStrategy[bytes]) -> st.SearchStrategy[Entry]:
    if operation.relation is not None:
        return st.tuples(ids, IDS, PATHS if operation.relation.has_path else st.none())
    dated = st.tuples(ids) | st.tuples(ids, DATES)
    return {
        WriteMethod.CONTENT_ADD: dated,
        WriteMethod.DIRECTORY_ADD: dated,
        WriteMethod.LOCATION_ADD: st.tuples(PATHS),
        WriteMethod.ORIGIN_ADD: st.tuples(ids, st.just("url")),
        WriteMethod.REVISION_ADD: st.tuples(ids)
        | st.tuples(ids, st.builds(RevisionData, DATES, st.sampled_from([None, ORIGIN]))),
    }[operation.method]


def bodies_of(operation: Operation) -> st.SearchStrategy[bytes]:
    good = st.lists(entries_of(operation, IDS), max_size=4).map(encode_package)
    refused = st.lists(entries_of(operation, IDS | BAD_IDS), min_size=1, max_size=3).map(encode_package)
    other = st.sampled_from(OPERATIONS).flatmap(lambda other: st.lists(entries_of(other, IDS)).map(encode_package))
    cut = st.tuples(good, st.integers(0, 20)).map(lambda pair: pair[0][: pair[1]])
    return st.one_of(good, good, good, refused, other, cut, st.binary(max_size=40))


HEADER_VALUES = st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.text(max_size=5) | st.binary(max_size=5)
HEADERS = st.dictionaries(
    st.sampled_from([NACK_HEADER, "provgate-exchange", "provgate-routing-key", "x-own", "own"]),
    HEADER_VALUES,
    max_size=3,
)
ANSWERS = st.lists(st.sampled_from(["confirm_next", "refuse_next", "return_next"]), max_size=6)
REPLY_QUEUE = "amq.gen-queue"
REPLY_TOS = st.sampled_from([None, "", REPLY_QUEUE, REPLY_QUEUE, "content_add.unknown.0", "provgate.dead-letters"])


@dataclass(frozen=True)
class SentPackage:
    """A package as its sender made it."""

    operation: Operation
    body: bytes
    headers: dict[str, Any]
    reply_to: str | None
    correlated: bool

    @property
    def entries(self) -> list[Entry] | None:
        """Its entries; None where it is malformed."""
        try:
            return decode_entries(self.body, self.operation)
        except MalformedPackageError:
            return None

    @property
    def is_good(self) -> bool:
        """Whether it can be stored."""
        entries = self.entries
        return entries is not None and not {entry[0] for entry in entries} & {REFUSED_ID, UNEXPECTED_ID}

    @property
    def is_answered(self) -> bool:
        """Whether its sender waits for a reply once it is stored."""
        return self.reply_to == REPLY_QUEUE and self.correlated


PACKAGES = st.sampled_from(OPERATIONS).flatmap(
    lambda operation: st.builds(
        SentPackage,
        operation=st.just(operation),
        body=bodies_of(operation),
        headers=HEADERS,
        reply_to=REPLY_TOS,
        correlated=st.booleans(),
    )
)


class HostMachine(RuleBasedStateMachine):
    """A process of range workers between a broker, a storage and a clock that do what they like."""

    @initialize()
    def start(self) -> None:
        self.sent: dict[int, SentPackage] = {}
        self.replied: set[int] = set()
        # Whose deliveries were acked while publishes are blocked: the replies are kept, and lost with the process.
        self.kept: set[int] = set()
        # Whose replies are lost: a reply queue was gone or full, or the process died that kept them.
        self.reply_lost: set[int] = set()
        self.poisoned = False
        self.storage = SimulatedStorage()
        self.storage.open()
        queues = [binding_key(operation, 0) for operation in OPERATIONS]
        self.broker = SimulatedBroker(queues, self.may_be_forgotten, self.check_reply)
        # Other tests show that a package is refused that times out each time while others are stored.
        self.timeouts = many_timeouts()
        self.timeouts.start()
        self.process = self.new_process()

    def new_process(self) -> SimulatedProcess:
        # Some of the packages do not fit in memory beside each other.
        return SimulatedProcess(self.broker, self.storage, max_in_hand_bytes=400, poison_after=1, storage_threads=2)

    def is_stored(self, number: int) -> bool:
        package = self.sent[number]
        return package.entries is not None and holds(self.storage, package.operation, package.entries)

    def may_be_forgotten(self, number: int) -> bool:
        if self.is_stored(number) and self._awaits_reply(number) and self.broker.publisher.blocked:
            self.kept.add(number)
            return True
        return self.is_stored(number) and not self._awaits_reply(number)

    def check_reply(self, message: Message) -> None:
        reply = decode_reply(message.body)
        number = int(message.correlation_id or "")
        self.replied.add(number)
        if isinstance(reply, Nack):
            assert number in self.broker.dead_letters()
        else:
            assert self.is_stored(number)
            assert reply == len(self.sent[number].entries or [])

    @rule(packages=st.lists(PACKAGES, min_size=1, max_size=4))
    def publish(self, packages: list[SentPackage]) -> None:
        for package in packages:
            number = len(self.sent)
            self.sent[number] = package
            queue = binding_key(package.operation, 0)
            self.broker.queues[queue].append(
                Held(
                    number,
                    exchange_of(package.operation),
                    queue,
                    package.body,
                    package.reply_to,
                    str(number) if package.correlated else None,
                    {**package.headers, NUMBER_HEADER: number},
                )
            )

    @rule(packages=st.lists(PACKAGES, min_size=1, max_size=4), answers=ANSWERS)
    def handle(self, packages: list[SentPackage], answers: list[str]) -> None:
        self.publish(packages)
        self.work()
        self.answer(answers)

    @rule()
    def deliver(self) -> None:
        for operation in OPERATIONS:
            self.process.run(partial(self.broker.consumer.deliver, binding_key(operation, 0)))

    @rule()
    def work(self) -> None:
        self.deliver()
        while self.process.job_count:
            self.process.finish_job(0)

    @precondition(lambda self: self.process.job_count)
    @rule(number=st.integers(0, 3))
    def storage_thread_ends(self, number: int) -> None:
        self.process.finish_job(number)

    @rule(trouble=st.sampled_from(Trouble))
    def storage_changes(self, trouble: Trouble) -> None:
        self.storage.trouble = trouble

    @rule(answers=ANSWERS)
    def answer(self, answers: list[str]) -> None:
        for answer in answers:
            if self.broker.publisher.underway and not self.broker.publisher.blocked:
                message = self.broker.publisher.underway[0]
                if not message.mandatory and answer != "confirm_next":
                    self.reply_lost.add(int(message.correlation_id or ""))
                self.process.run(getattr(self.broker.publisher, answer))

    @rule(arrived_count=st.integers(0, 5))
    def publisher_is_lost(self, arrived_count: int) -> None:
        self.process.run(lambda: self.broker.publisher.lose(arrived_count))

    @rule(blocked=st.booleans())
    def broker_blocks(self, blocked: bool) -> None:
        self.process.run(lambda: self.broker.publisher.block(blocked))

    @rule(connected=st.booleans())
    def deliveries_are_lost(self, connected: bool) -> None:
        self.broker.consumer.getter.connected = connected
        self.process.run(self.broker.lose_channels)

    @rule(seconds=st.sampled_from([0.5, 6.0, 15.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self.process.pass_time(seconds)

    @rule(finish=st.booleans())
    def process_dies_and_is_replaced(self, finish: bool) -> None:
        # What it had published may arrive; what it had begun to store may be committed.
        if finish:
            self.process.finish_job(0)
        # Its successor takes a package that a lost connection gave back for one that killed its program.
        returned = any(held.delivery_count for held in self.broker.queues[QUARANTINE_QUEUE])
        self.poisoned = self.poisoned or returned or bool(self._in_quarantine_hands())
        self.process.end()
        self.reply_lost |= self.kept
        self.kept.clear()
        for channel in self.broker.channels:
            channel.lose()
        self.process = self.new_process()

    @invariant()
    def it_lives(self) -> None:
        if hasattr(self, "process"):
            self.process.check_alive()

    @invariant()
    def every_package_is_somewhere(self) -> None:
        # Ready, in hand, set aside as a copy, or stored: `SimulatedBroker.forget` asks this at each ack.
        for number in getattr(self, "sent", {}):
            assert self.broker.copies(number) or self.is_stored(number)

    def teardown(self) -> None:
        if not hasattr(self, "process"):
            return
        try:
            self._heal()
            self._check_the_end()
            self.process.stop()
            assert self.process.has_ended()
        finally:
            self.process.end()
            self.timeouts.stop()

    def _awaits_reply(self, number: int) -> bool:
        return self.sent[number].is_answered and number not in self.replied | self.reply_lost

    def _in_quarantine_hands(self) -> list[Held]:
        return [
            held
            for channel in self.broker.channels
            if channel.queue == QUARANTINE_QUEUE
            for held in channel.unsettled.values()
        ]

    def _heal(self) -> None:
        self.storage.trouble = Trouble.NONE
        self.broker.consumer.getter.connected = True
        self.broker_blocks(False)
        for _ in range(200):
            self.work()
            while self.broker.publisher.underway:
                self.process.run(self.broker.publisher.confirm_next)
            self.process.pass_time(13.0)
            if self._is_quiet():
                return
        raise AssertionError(f"{self.broker.unsettled_count} in hand, queues {self.broker.queues}")

    def _is_quiet(self) -> bool:
        waiting = [queue for queue in self.broker.queues if queue != "provgate.dead-letters"]
        return not (
            self.broker.unsettled_count
            or self.process.job_count
            or self.broker.publisher.underway
            or any(self.broker.queues[queue] for queue in waiting)
        )

    def _check_the_end(self) -> None:
        dead = self.broker.dead_letters()
        for number, package in self.sent.items():
            what = f"package {number}: {package}"
            assert self.is_stored(number) or number in dead, what
            # A reply that was kept while publishes were blocked comes too.
            assert number in dead or not self._awaits_reply(number), f"no reply came to {what}"
            if package.is_good and not self.poisoned:
                assert self.is_stored(number), what
                assert number not in dead, what


HostMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestHost: Any = HostMachine.TestCase


def test_a_reply_that_is_lost_after_the_broker_blocked_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(box: Outbox, sending: Any) -> None:
        box._finish(sending)  # as confirmed, though it is not published

    machine = HostMachine()
    machine.start()
    # Blocked once, for a moment: what comes later is checked all the same, and so is what is kept meanwhile.
    machine.broker_blocks(True)
    machine.broker_blocks(False)
    with monkeypatch.context() as broken:
        broken.setattr(Outbox, "_keep", lose)
        machine.broker_blocks(True)
        machine.publish([SentPackage(OPERATIONS[0], encode_package([(b"i" * 20,)]), {}, REPLY_QUEUE, True)])
        machine.work()
    with pytest.raises(AssertionError, match="no reply came to package 0"):
        machine.teardown()


def deferred_count(running: Scenario) -> float:
    return running.value("deferred_total", operation="content_add")


def test_a_package_is_committed_then_answered_then_acked() -> None:
    with scenario() as running:
        number = running.send(row_count=3)
        assert not running.is_stored(number)
        running.store()
        assert (running.is_stored(number), running.replies, running.broker.acked_count) == (True, {}, 0)
        running.confirm()
        assert (running.replies, running.broker.acked_count) == ({number: 3}, 1)


def test_readiness_is_news_when_every_queue_is_registered() -> None:
    with scenario() as running:
        assert running.process.news.is_set()
        assert running.process.report().registered


def test_a_body_that_is_too_large_becomes_a_dead_letter_unread() -> None:
    with scenario(package_max_bytes=1000) as running:
        number = running.send(row_count=100)
        assert running.process.job_count == 0
        running.confirm()
        assert running.broker.dead_letters() == {number}
        assert running.broker.acked_count == 1


def test_a_package_that_was_redelivered_too_often_is_stored_alone_from_quarantine() -> None:
    with scenario(poison_after=2) as running:
        often, less = running.publish(delivery_count=3), running.publish(delivery_count=2)
        running.deliver()
        assert running.process.batches == [(CONTENT_ADD, [0])]
        running.confirm()
        # It waits until nothing else is being stored.
        assert len(running.broker.queues[QUARANTINE_QUEUE]) == 1
        running.store()
        running.work()
        assert running.stored_count([often, less]) == 2
        assert running.value("quarantined_total") == 1
        assert running.replies == {often: 1, less: 1}


def test_rows_of_other_ranges_are_stored_and_counted_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with scenario(range_count=16) as running:
        for _ in range(2):
            stray = running.send(body=encode_package([(b"\xff" * 20,)]))
            running.work()
            assert running.is_stored(stray)
        assert running.value("stray_rows_total", exchange="content") == 2
    assert caplog.text.count("rows of other ranges come to queue content_add.unknown.0") == 1


def test_a_database_of_another_schema_ends_the_process() -> None:
    with scenario() as running:
        running.storage.failure = lambda _name, _rows: SchemaMismatchError("version 2")
        running.send()
        running.store()
        ended_with = running.process.failure
        assert isinstance(ended_with, ExceptionGroup)
        assert ended_with.subgroup(SchemaMismatchError) is not None


# The bodies of packages of 3 rows: one fits in the quarter of 400 bytes that an operation may use, two do not.
def test_what_finds_no_memory_is_requeued_once_when_memory_is_free() -> None:
    with scenario(max_in_hand_bytes=400) as running:
        first, second, third = (running.publish(row_count=3) for _ in range(3))
        running.deliver()
        # Both are in the prefetch window, without their bodies.
        assert (running.broker.unsettled_count, deferred_count(running)) == (3, 2)
        running.store()
        running.confirm()
        assert running.broker.unsettled_count == 1
        running.deliver()
        assert running.process.batches == [(CONTENT_ADD, [0])]
        running.work()
        running.work()
        assert running.stored_count([first, second, third]) == 3
        assert deferred_count(running) == 2
        assert running.value("redeliveries_total", operation="content_add") == 0


def test_what_is_deferred_goes_back_when_its_queue_is_suspended() -> None:
    with scenario(max_in_hand_bytes=400) as running:
        stored, deferred = running.publish(row_count=3), running.publish(row_count=3)
        running.deliver()
        running.process.stop()
        assert running.broker.unsettled_count == 1
        running.store()
        running.confirm()
        running.process.settle()
        assert running.process.has_ended()
        assert (running.is_stored(stored), running.is_stored(deferred)) == (True, False)
        assert running.broker.copies(deferred) == 1


def test_memory_of_packages_that_the_broker_took_back_is_free_again() -> None:
    with scenario(max_in_hand_bytes=400) as running:
        for operation in (CONTENT_ADD, DIRECTORY_ADD):
            running.publish(operation, row_count=3)
            running.publish(operation, row_count=3)
        running.deliver()
        running.process.run(running.broker.lose_channels)
        for _ in range(3):
            running.work()
        assert running.stored_count([0, 1, 2, 3]) == 4
        assert running.value("in_hand_bytes") == 0


def test_packages_that_wait_or_are_stored_when_the_broker_takes_them_back_are_in_hand_no_more() -> None:
    with scenario() as running:
        running.send()
        waiting = running.send()
        assert running.process.batches == [(CONTENT_ADD, [0])]
        running.process.run(running.broker.lose_channels)
        # The one that waited is not stored from here; what is being stored goes on, and its ack has no effect.
        running.store()
        running.confirm()
        assert (running.value("in_hand_bytes"), running.broker.acked_count) == (0, 0)
        assert not running.is_stored(waiting)
        running.work()
        assert (running.stored_count([0, waiting]), running.broker.acked_count) == (2, 2)


def test_memory_that_is_reserved_for_a_package_which_went_elsewhere_is_for_others_later() -> None:
    with scenario(max_in_hand_bytes=400) as running:
        running.publish(row_count=3)
        running.publish(row_count=3)
        running.deliver()
        running.store()
        running.confirm()
        # The second one is requeued, and another process gets it.
        queue = running.broker.queues[binding_key(CONTENT_ADD, 0)]
        queue.clear()
        other = running.send(row_count=3)
        assert running.process.job_count == 0
        running.process.pass_time(11.0)
        running.process.pass_time(11.0)
        running.work()
        assert running.is_stored(other)


def test_a_process_that_stops_ends_its_batches_sends_its_replies_and_gives_the_rest_back() -> None:
    with scenario() as running:
        running.send()
        waiting = running.send()
        running.process.stop()
        assert not running.process.has_ended()
        running.store()
        # The batch has ended, and its reply is not confirmed.
        assert not running.process.has_ended()
        running.confirm()
        running.process.settle()
        assert running.process.has_ended()
        assert (running.stored_count([0, waiting]), running.broker.acked_count) == (1, 1)
        assert running.broker.copies(waiting) == 1


def test_a_process_that_stops_waits_some_seconds_for_replies() -> None:
    with scenario() as running:
        running.send()
        running.process.stop()
        running.store()
        running.process.pass_time(5.1)
        assert running.process.has_ended()
        assert running.broker.acked_count == 0


def test_a_process_that_stops_waits_for_the_nack_that_follows_a_dead_letter() -> None:
    with scenario() as running:
        number = running.send(body=b"nonsense", headers={NACK_HEADER: True})
        running.process.stop()
        running.store()
        running.process.run(running.broker.publisher.confirm_next)
        # The dead letter is safe, and the nack is not confirmed. Without an ack there would be a second dead letter.
        assert not running.process.has_ended()
        running.confirm()
        assert running.process.has_ended()
        assert isinstance(running.replies[number], Nack)
        assert (running.broker.acked_count, running.broker.copies(number)) == (1, 1)


def give_up_late(running: Scenario) -> tuple[int, int]:
    """Lets a process without storage give its ranges up, and delivers a package before the channels are closed.

    Returns the package that waits in memory, and the one that comes late.
    """
    running.storage.trouble = Trouble.AWAY
    waiting = running.send()
    running.store()
    running.broker.consumer.closes_late = True
    running.work(70.0)
    late = running.send()
    assert (running.process.batches, running.broker.unsettled_count) == ([], 2)
    return waiting, late


def test_a_package_that_comes_after_the_ranges_were_given_up_is_requeued_when_they_are_taken_again() -> None:
    with scenario() as running:
        waiting, late = give_up_late(running)
        running.storage.trouble = Trouble.NONE
        running.process.pass_time(5.0)
        running.store()
        # No channel was closed: the one that waited is tried, and the late one is with the broker.
        assert running.process.batches == [(CONTENT_ADD, [0])]
        assert [held.number for held in running.broker.queues[binding_key(CONTENT_ADD, 0)]] == [late]
        running.work()
        assert running.replies == {waiting: 1, late: 1}
        assert (deferred_count(running), running.value("in_hand_bytes")) == (0, 0)


def test_a_package_that_comes_after_the_ranges_were_given_up_goes_back_with_its_channel() -> None:
    with scenario() as running:
        waiting, late = give_up_late(running)
        running.process.run(running.broker.consumer.close_released)
        assert (running.broker.unsettled_count, running.value("in_hand_bytes")) == (0, 0)
        running.storage.trouble = Trouble.NONE
        running.work(10.0)
        assert running.replies == {waiting: 1, late: 1}
        assert (running.broker.acked_count, running.value("in_hand_bytes")) == (2, 0)


def test_a_dead_letter_that_is_confirmed_as_the_process_stops_is_followed_by_its_nack() -> None:
    with scenario() as running:
        number = running.send(body=b"nonsense", headers={NACK_HEADER: True})
        running.store()
        running.process.stop(running.broker.publisher.confirm_next)
        assert not running.process.has_ended()
        running.confirm()
        assert isinstance(running.replies[number], Nack)
        assert running.broker.acked_count == 1


def trouble_and_a_reply(running: Scenario) -> None:
    """Lets a reply wait for its confirm, and a probe run."""
    running.send()
    running.store()
    running.storage.trouble = Trouble.AWAY
    running.send(DIRECTORY_ADD)
    running.store()


def test_a_process_that_stops_gives_no_range_up() -> None:
    with scenario(pause_limit_s=3.0) as running:
        trouble_and_a_reply(running)
        running.process.stop()
        running.process.pass_time(3.1)
        # The channel is open: its delivery can be acked.
        running.confirm()
        assert (running.process.has_ended(), running.broker.acked_count) == (True, 1)


def test_a_process_that_stops_does_not_take_ranges_again_that_it_gave_up() -> None:
    with scenario(pause_limit_s=3.0) as running:
        trouble_and_a_reply(running)
        running.process.pass_time(3.1)
        assert not running.broker.consumer.is_consuming()
        running.process.stop()
        running.storage.trouble = Trouble.NONE
        running.store()
        assert not running.process.has_ended()
        assert not running.broker.consumer.is_consuming()
