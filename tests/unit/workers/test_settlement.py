from __future__ import annotations

from collections.abc import Callable
from typing import cast

from prometheus_client import CollectorRegistry

from provgate_broker.consume.delivery import Delivery
from provgate_broker.dead_letters.messages import REASON_HEADER, DeadLetterReason
from provgate_broker.publish.publisher import Message
from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE, QUARANTINE_QUEUE
from provgate_broker.wire.package import NACK_HEADER, Nack, decode_reply
from provgate_workers.metrics import WorkerMetrics
from provgate_workers.settle.outbox import Outbox
from provgate_workers.settle.settlement import Settlement
from provgate_workers.store.batch import Refused, Stored
from tests.unit.deliveries import FakeAmqpChannel, delivery

SOURCE = ("content", "content_add.unknown.a")
REFUSED = Refused(DeadLetterReason.REFUSED, "because")


class FakeOutbox:
    """Holds what is sent until the test says that it is done."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Message, Callable[[], None]]] = []

    def send_reply(self, message: Message, done: Callable[[], None]) -> None:
        self.sent.append(("reply", message, done))

    def send_copy(self, message: Message, done: Callable[[], None]) -> None:
        self.sent.append(("copy", message, done))

    def finish(self) -> Message:
        _, message, done = self.sent.pop(0)
        done()
        return message


class Bench:
    """A settlement with everything around it."""

    def __init__(self) -> None:
        self.outbox = FakeOutbox()
        self.settled: list[Delivery] = []
        metrics = WorkerMetrics(CollectorRegistry())
        self.settlement = Settlement(cast("Outbox", self.outbox), self.settled.append, metrics)
        self.amqp_channel = FakeAmqpChannel()

    def package(self, **properties: object) -> Delivery:
        return delivery(amqp_channel=self.amqp_channel, **properties)  # type: ignore[arg-type]


def test_a_stored_package_is_acked_after_its_reply_is_safe() -> None:
    bench = Bench()
    package = bench.package(reply_to="amq.gen-sender", correlation_id="id")
    bench.settlement.settle(package, Stored(7), SOURCE)
    assert bench.amqp_channel.acked == []
    message = bench.outbox.finish()
    assert (message.exchange, message.routing_key, message.correlation_id) == ("", "amq.gen-sender", "id")
    assert message.token != "id"
    assert decode_reply(message.body) == 7
    assert not message.mandatory
    assert bench.amqp_channel.acked == [1]
    assert bench.settled == [package]


def test_two_packages_of_one_correlation_id_have_replies_of_their_own() -> None:
    bench = Bench()
    for _ in range(2):
        bench.settlement.settle(bench.package(), Stored(1), SOURCE)
    assert len({message.token for _, message, _ in bench.outbox.sent}) == 2


def test_a_package_that_cannot_be_answered_is_acked_at_once() -> None:
    for properties in ({"reply_to": None}, {"correlation_id": None}, {"reply_to": "somebody's"}):
        bench = Bench()
        bench.settlement.settle(bench.package(**properties), Stored(1), SOURCE)
        assert bench.outbox.sent == []
        assert bench.amqp_channel.acked == [1]


def test_a_refused_package_is_acked_after_its_dead_letter_is_safe() -> None:
    bench = Bench()
    bench.settlement.settle(bench.package(), REFUSED, SOURCE)
    assert bench.amqp_channel.acked == []
    message = bench.outbox.finish()
    assert (message.routing_key, message.headers[REASON_HEADER]) == (DEAD_LETTER_QUEUE, "refused")
    assert bench.amqp_channel.acked == [1]
    assert bench.outbox.sent == []


def test_a_sender_that_understands_it_gets_a_nack_after_the_dead_letter() -> None:
    bench = Bench()
    bench.settlement.settle(bench.package(headers={NACK_HEADER: True}), REFUSED, SOURCE)
    bench.outbox.finish()
    assert bench.amqp_channel.acked == []
    assert decode_reply(bench.outbox.finish().body) == Nack("refused", "because", 0)
    assert bench.amqp_channel.acked == [1]


def test_a_package_is_acked_after_its_copy_in_quarantine_is_safe() -> None:
    bench = Bench()
    looked: list[bool] = []
    bench.settlement.quarantine(bench.package(), SOURCE, lambda: looked.append(True))
    assert (bench.amqp_channel.acked, looked) == ([], [])
    assert bench.outbox.finish().routing_key == QUARANTINE_QUEUE
    assert (bench.amqp_channel.acked, looked) == ([1], [True])
