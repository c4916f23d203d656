"""Dead letters and quarantined packages as messages."""

from __future__ import annotations

from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pika.data import encode_table

from provgate_broker.consume.delivery import DELIVERY_COUNT_HEADER, Delivery
from provgate_broker.dead_letters.messages import (
    EXCHANGE_HEADER,
    ID_HEADER,
    REASON_HEADER,
    ROUTING_KEY_HEADER,
    DeadLetterReason,
    dead_letter,
    quarantined,
    read_dead_letter,
    source_of,
)
from provgate_broker.publish.publisher import Message
from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE, QUARANTINE_QUEUE
from tests.unit.deliveries import delivery

SOURCE = ("content", "content_add.unknown.a")
header_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def redelivered(message: Message, queue: str) -> Delivery:
    """Returns what a reader gets of a message."""
    properties = message.properties()
    return delivery(
        queue,
        message.body,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        headers=MappingProxyType(properties.headers or {}),
    )


def test_a_dead_letter_has_source_and_reason() -> None:
    package = delivery(headers={"note": "kept", "provgate-nack": True, DELIVERY_COUNT_HEADER: 3}, correlation_id="c")
    message = dead_letter("token", package, SOURCE, DeadLetterReason.REFUSED, "said " * 1000)
    assert (message.exchange, message.routing_key, message.mandatory) == ("", DEAD_LETTER_QUEUE, True)
    letter = read_dead_letter(redelivered(message, DEAD_LETTER_QUEUE))
    assert (letter.id, letter.reason, letter.redelivered_count) == ("token", "refused", 3)
    assert (letter.exchange, letter.routing_key) == SOURCE
    assert letter.message.startswith("said said")
    assert len(letter.message) <= 1000
    assert abs((datetime.now(UTC) - datetime.fromisoformat(letter.time)).total_seconds()) < 60
    assert letter.delivery.body == package.body
    assert letter.delivery.correlation_id == "c"
    assert letter.delivery.headers["note"] == "kept"
    assert letter.delivery.headers["provgate-nack"] is True


def test_the_copy_has_none_of_the_broker_s_headers() -> None:
    package = delivery(headers={DELIVERY_COUNT_HEADER: 9, "x-death": []})
    message = quarantined("token", package, SOURCE)
    assert message.routing_key == QUARANTINE_QUEUE
    assert set(message.headers) == {ID_HEADER, EXCHANGE_HEADER, ROUTING_KEY_HEADER}


def test_a_package_keeps_its_source_from_quarantine_to_dead_letter() -> None:
    in_quarantine = redelivered(quarantined("first", delivery(), SOURCE), QUARANTINE_QUEUE)
    assert source_of(in_quarantine) == SOURCE
    message = dead_letter("second", in_quarantine, source_of(in_quarantine), DeadLetterReason.POISON, "it kills")
    letter = read_dead_letter(redelivered(message, DEAD_LETTER_QUEUE))
    assert (letter.exchange, letter.routing_key, letter.id) == (*SOURCE, "second")


def test_a_package_without_correlation_id_gets_no_reply() -> None:
    message = quarantined("token", delivery(correlation_id=None, reply_to="amq.gen-queue"), SOURCE)
    assert message.reply_to is None


@given(st.dictionaries(st.text(max_size=40), header_values, max_size=5))
def test_our_headers_fit_beside_any_others(headers: dict[str, Any]) -> None:
    message = dead_letter("token", delivery(headers=headers), SOURCE, DeadLetterReason.MALFORMED, "text")
    assert message.headers[REASON_HEADER] == "malformed"
    pieces: list[bytes] = []
    encode_table(pieces, dict(message.headers))
    assert len(b"".join(pieces)) < 128 * 1024


def test_headers_that_fill_a_frame_are_not_kept() -> None:
    message = dead_letter("token", delivery(headers={"big": "x" * 100_000}), SOURCE, DeadLetterReason.MALFORMED, "text")
    assert "big" not in message.headers


@given(header_values, header_values)
def test_an_invalid_source_header_is_ignored(exchange: Any, routing_key: Any) -> None:
    package = delivery(headers={EXCHANGE_HEADER: exchange, ROUTING_KEY_HEADER: routing_key})
    assert all(isinstance(name, str) and name.isprintable() and len(name) < 256 for name in source_of(package))
    long = delivery(headers={EXCHANGE_HEADER: "ü" * 128, ROUTING_KEY_HEADER: SOURCE[1]})
    assert source_of(long) == (long.exchange, long.routing_key)


def test_a_letter_of_another_program_can_be_read() -> None:
    letter = read_dead_letter(delivery(DEAD_LETTER_QUEUE, b"", headers={"provgate-redelivered": "many"}))
    assert (letter.id, letter.reason, letter.redelivered_count) == ("", "", 0)
