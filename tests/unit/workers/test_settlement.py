"""In which order a package is answered, copied and acked, and who is answered."""

from __future__ import annotations

from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from provgate_broker.dead_letters.messages import REASON_HEADER, DeadLetterReason
from provgate_broker.publish.publisher import Message
from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE, QUARANTINE_QUEUE
from provgate_broker.wire.package import NACK_HEADER, Nack, decode_reply
from provgate_workers.metrics import WorkerMetrics
from provgate_workers.package import Outcome, Package, Quarantined, Refused, State, Stored
from provgate_workers.settle.outbox import Outbox
from provgate_workers.settle.settlement import Answer, Settlement, answer_of, nack_of
from tests.support.entries import encode_package
from tests.unit.deliveries import FakeAmqpChannel, delivery

SOURCE = ("content", "content_add.unknown.a")
REFUSED = Refused(DeadLetterReason.REFUSED, "because")


class Bench:
    """A settlement, its outbox, and a package that it settles."""

    def __init__(self, outcome: Outcome, **properties: Any) -> None:
        self.sent: list[tuple[Message, bool]] = []
        self.settlement = Settlement(cast("Outbox", self), WorkerMetrics(CollectorRegistry()))
        self.amqp_channel = FakeAmqpChannel()
        self.package = Package.of(delivery(amqp_channel=self.amqp_channel, **properties), SOURCE)
        self.settlement.settle(self.package, outcome)

    def send(self, message: Message, *, expendable: bool) -> None:
        """Stands for `Outbox.send`."""
        self.sent.append((message, expendable))

    def confirm(self) -> Message:
        """Confirms the next message, and returns it."""
        message, _ = self.sent.pop(0)
        acked = self.settlement.confirmed(message.token)
        assert (acked is not None) == (self.package.state is State.ACKED) == (self.amqp_channel.acked == [1])
        return message


def test_a_stored_package_is_acked_after_its_reply_is_safe() -> None:
    bench = Bench(Stored(7), reply_to="amq.gen-sender", correlation_id="id")
    assert (bench.package.state, bench.amqp_channel.acked) == (State.REPLYING, [])
    assert [expendable for _, expendable in bench.sent] == [True]
    message = bench.confirm()
    assert (message.exchange, message.routing_key, message.correlation_id) == ("", "amq.gen-sender", "id")
    assert message.token != "id"
    assert decode_reply(message.body) == 7
    assert not message.mandatory
    assert bench.package.state is State.ACKED
    # A second confirm of the same message has no effect.
    assert bench.settlement.confirmed(message.token) is None
    assert bench.amqp_channel.acked == [1]


def test_two_packages_of_one_correlation_id_have_replies_of_their_own() -> None:
    bench = Bench(Stored(1))
    bench.settlement.settle(Package.of(delivery(), SOURCE), Stored(1))
    assert len({message.token for message, _ in bench.sent}) == 2


@pytest.mark.parametrize("properties", [{"reply_to": None}, {"correlation_id": None}, {"reply_to": "somebody's"}])
def test_a_package_that_cannot_be_answered_is_acked_at_once(properties: dict[str, str | None]) -> None:
    bench = Bench(Stored(1), **properties)
    assert (bench.sent, bench.package.state, bench.amqp_channel.acked) == ([], State.ACKED, [1])


def test_packages_that_cannot_be_answered_are_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(Stored(1), reply_to="somebody's")
    for _ in range(5):
        bench.settlement.settle(Package.of(delivery(reply_to="somebody's"), SOURCE), Stored(1))
    assert caplog.text.count("its reply_to is not a queue that the broker named") == 1


def test_a_refused_package_is_acked_after_its_dead_letter_is_safe() -> None:
    bench = Bench(REFUSED)
    assert (bench.package.state, bench.amqp_channel.acked) == (State.COPYING, [])
    assert [expendable for _, expendable in bench.sent] == [False]
    message = bench.confirm()
    assert (message.routing_key, message.headers[REASON_HEADER]) == (DEAD_LETTER_QUEUE, "refused")
    assert (bench.package.state, bench.sent) == (State.ACKED, [])


def test_a_sender_that_understands_it_gets_a_nack_after_the_dead_letter() -> None:
    bench = Bench(REFUSED, headers={NACK_HEADER: True})
    bench.confirm()
    assert (bench.package.state, bench.amqp_channel.acked) == (State.REPLYING, [])
    assert decode_reply(bench.confirm().body) == Nack("refused", "because", 0)
    assert bench.package.state is State.ACKED


def test_a_package_is_acked_after_its_copy_in_quarantine_is_safe() -> None:
    bench = Bench(Quarantined(), headers={NACK_HEADER: True})
    assert (bench.package.state, bench.amqp_channel.acked) == (State.COPYING, [])
    assert bench.confirm().routing_key == QUARANTINE_QUEUE
    assert (bench.package.state, bench.sent) == (State.ACKED, [])


@pytest.mark.parametrize(
    ("reply_to", "correlation_id", "answer"),
    [
        ("amq.gen-x", "id", Answer.EXPECTED),
        ("provgate.reply.x", "id", Answer.EXPECTED),
        ("amq.gen-x", None, Answer.NO_CORRELATION_ID),
        ("amq.gen-x", "", Answer.NO_CORRELATION_ID),
        (None, "id", Answer.UNWANTED),
        (None, None, Answer.UNWANTED),
        ("", "id", Answer.UNTRUSTED),
        ("content_add.unknown.a", "id", Answer.UNTRUSTED),
        ("provgate.dead-letters", "id", Answer.UNTRUSTED),
        ("provgate.quarantine", "id", Answer.UNTRUSTED),
        ("provgate.reply", "id", Answer.UNTRUSTED),
        ("amq.rabbitmq.reply-to.g1h2", "id", Answer.UNTRUSTED),
        ("AMQ.GEN-x", "id", Answer.UNTRUSTED),
        (" amq.gen-x", "id", Answer.UNTRUSTED),
    ],
)
def test_who_is_answered(reply_to: str | None, correlation_id: str | None, answer: Answer) -> None:
    assert answer_of(delivery(reply_to=reply_to, correlation_id=correlation_id)) is answer


@pytest.mark.parametrize(("value", "understood"), [(True, True), (False, False), (1, False), ("true", False)])
def test_a_nack_is_for_a_sender_that_says_so(value: Any, understood: bool) -> None:
    assert (nack_of(delivery(headers={NACK_HEADER: value}), REFUSED) is not None) is understood
    assert nack_of(delivery(), REFUSED) is None


@pytest.mark.parametrize(
    ("reason", "body", "rejected_count"),
    [
        (DeadLetterReason.REFUSED, encode_package([(b"i" * 20,), (b"j" * 20,)]), 2),
        (DeadLetterReason.MALFORMED, b"?", 0),
        # It may be stored.
        (DeadLetterReason.POISON, encode_package([(b"i" * 20,)]), 0),
    ],
)
def test_a_nack_says_how_many_rows_were_refused(reason: DeadLetterReason, body: bytes, rejected_count: int) -> None:
    nack = nack_of(delivery(body=body, headers={NACK_HEADER: True}), Refused(reason, "m" * 5000))
    assert nack == Nack(reason.value, "m" * 1000, rejected_count)
