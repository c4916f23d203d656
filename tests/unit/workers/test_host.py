"""Whatever comes, in whatever order, a package is never let go before it is stored or its copy is safe."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from provgate_broker.declaration import QUARANTINE_QUEUE
from provgate_broker.errors import MalformedPackageError
from provgate_broker.publisher import Message
from provgate_broker.topology import OPERATIONS, Operation, WriteMethod, binding_key, exchange_of
from provgate_broker.wire import NACK_HEADER, Entry, Nack, decode_package, decode_reply, encode_package
from provgate_storage.model import RevisionData
from tests.unit.workers.simulated_broker import NUMBER_HEADER, Held, SimulatedBroker
from tests.unit.workers.simulated_process import (
    REFUSED_ID,
    UNEXPECTED_ID,
    SimulatedProcess,
    SimulatedStorage,
    Trouble,
    holds,
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
    st.sampled_from(
        [NACK_HEADER, "provgate-redeliveries", "provgate-exchange", "provgate-routing-key", "x-own", "own"]
    ),
    HEADER_VALUES,
    max_size=3,
)
REPLY_TOS = st.sampled_from([None, "", "amq.gen-queue", "content_add.unknown.0", "provgate.dead-letters"])


class HostMachine(RuleBasedStateMachine):
    """A process of range workers between a broker, a storage and a clock that do what they like."""

    @initialize()
    def start(self) -> None:
        self.sent: dict[int, tuple[Operation, bytes]] = {}
        self.poisoned = False
        self.storage = SimulatedStorage()
        self.storage.open()
        queues = [binding_key(operation, 0) for operation in OPERATIONS]
        self.broker = SimulatedBroker(queues, self.is_stored, self.check_reply)
        self.process = SimulatedProcess(self.broker, self.storage)

    def is_stored(self, number: int) -> bool:
        operation, body = self.sent[number]
        try:
            entries = decode_package(body, operation)
        except MalformedPackageError:
            return False
        return holds(self.storage, operation, entries)

    def check_reply(self, message: Message) -> None:
        reply = decode_reply(message.body)
        number = int(message.correlation_id or "")
        operation, body = self.sent[number]
        if isinstance(reply, Nack):
            assert number in self.broker.dead_letters()
        else:
            assert self.is_stored(number)
            assert reply == len(decode_package(body, operation))

    @rule(data=st.data(), operation=st.sampled_from(OPERATIONS), headers=HEADERS, reply_to=REPLY_TOS)
    def publish(self, data: st.DataObject, operation: Operation, headers: dict[str, Any], reply_to: str | None) -> None:
        body = data.draw(bodies_of(operation))
        number = len(self.sent)
        self.sent[number] = (operation, body)
        correlation_id = data.draw(st.sampled_from([None, str(number)]))
        self.broker.queues[binding_key(operation, 0)].append(
            Held(
                number,
                exchange_of(operation),
                binding_key(operation, 0),
                body,
                reply_to,
                correlation_id,
                {**headers, NUMBER_HEADER: number},
            )
        )

    @rule(operation=st.sampled_from(OPERATIONS))
    def deliver(self, operation: Operation) -> None:
        self.process.run(lambda: self.broker.consumer.deliver(binding_key(operation, 0)))

    @rule()
    def deliver_all(self) -> None:
        for operation in OPERATIONS:
            self.deliver(operation)

    @precondition(lambda self: self.process.job_count)
    @rule(number=st.integers(0, 3))
    def storage_thread_ends(self, number: int) -> None:
        self.process.finish_job(number)

    @rule(trouble=st.sampled_from(Trouble))
    def storage_changes(self, trouble: Trouble) -> None:
        self.storage.trouble = trouble

    @precondition(lambda self: self.broker.publisher.underway and not self.broker.publisher.blocked)
    @rule(what=st.sampled_from(["confirm_next", "confirm_next", "refuse_next", "return_next"]))
    def broker_answers(self, what: str) -> None:
        self.process.run(getattr(self.broker.publisher, what))

    @rule(arrived_count=st.integers(0, 5))
    def publisher_is_lost(self, arrived_count: int) -> None:
        self.process.run(lambda: self.broker.publisher.lose(arrived_count))

    @rule(blocked=st.booleans())
    def broker_blocks(self, blocked: bool) -> None:
        self.process.run(lambda: self.broker.publisher.block(blocked))

    @rule()
    def deliveries_are_lost(self) -> None:
        self.process.run(self.broker.lose_channels)

    @rule(connected=st.booleans())
    def quarantine_is_out_of_reach(self, connected: bool) -> None:
        self.broker.consumer.getter.connected = connected

    @rule(seconds=st.sampled_from([0.5, 6.0, 15.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self.process.pass_time(seconds)

    @rule(finish=st.booleans())
    def process_dies_and_is_replaced(self, finish: bool) -> None:
        # What it had published may arrive; what it had begun to store may be committed.
        if finish:
            self.process.finish_job(0)
        self.poisoned = self.poisoned or bool(self._in_quarantine_hands())
        self.process.end()
        for channel in self.broker.channels:
            channel.lose()
        self.process = SimulatedProcess(self.broker, self.storage)

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
            assert self.process.ended
        finally:
            self.process.end()

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
            self.deliver_all()
            while self.process.job_count:
                self.process.finish_job(0)
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
        for number, (operation, body) in self.sent.items():
            note(f"{number}: {operation} {body!r}")
            assert self.is_stored(number) or number in dead
            if self._is_good(operation, body) and not self.poisoned:
                assert self.is_stored(number)
                assert number not in dead

    @staticmethod
    def _is_good(operation: Operation, body: bytes) -> bool:
        try:
            entries = decode_package(body, operation)
        except MalformedPackageError:
            return False
        return operation.method is WriteMethod.LOCATION_ADD or not {entry[0] for entry in entries} & {
            REFUSED_ID,
            UNEXPECTED_ID,
        }


HostMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestHost: Any = HostMachine.TestCase
