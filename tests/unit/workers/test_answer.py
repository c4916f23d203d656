from __future__ import annotations

from typing import Any

import pytest

from provgate_broker.dead_letters.messages import DeadLetterReason
from provgate_broker.wire.package import NACK_HEADER
from provgate_workers.settle.settlement import Answer, answer_of, nack_of, understands_nack
from tests.support.entries import encode_package
from tests.unit.deliveries import delivery


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
def test_a_nack_is_understood_by_who_says_so(value: Any, understood: bool) -> None:
    assert understands_nack(delivery(headers={NACK_HEADER: value})) is understood
    assert not understands_nack(delivery())


def test_a_nack_says_how_many_rows_were_refused() -> None:
    package = delivery(body=encode_package([(b"i" * 20,), (b"j" * 20,)]))
    nack = nack_of(package, DeadLetterReason.REFUSED, "m" * 5000)
    assert (nack.error, nack.rejected_count, len(nack.message)) == ("refused", 2, 1000)
    assert nack_of(delivery(body=b"?"), DeadLetterReason.MALFORMED, "m").rejected_count == 0


def test_a_nack_of_poison_counts_nothing_as_refused_since_it_may_be_stored() -> None:
    package = delivery(body=encode_package([(b"i" * 20,)]))
    assert nack_of(package, DeadLetterReason.POISON, "m").rejected_count == 0
