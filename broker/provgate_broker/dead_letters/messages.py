"""Packages that are put aside: dead letters, and what goes to quarantine.

Either is a copy of a package with its properties and headers, and with headers of ours that say where it comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, TypeAlias

from pika.data import encode_table
from pika.exceptions import AMQPError

from provgate_broker.consume.delivery import Delivery
from provgate_broker.publish.publisher import Message
from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE, QUARANTINE_QUEUE

ID_HEADER: Final = "provgate-id"
REASON_HEADER: Final = "provgate-reason"
MESSAGE_HEADER: Final = "provgate-message"
EXCHANGE_HEADER: Final = "provgate-exchange"
ROUTING_KEY_HEADER: Final = "provgate-routing-key"
TIME_HEADER: Final = "provgate-time"
REDELIVERED_HEADER: Final = "provgate-redelivered"

Source: TypeAlias = tuple[str, str]
"""The exchange and the routing key that a package was published to."""

_OURS: Final = (
    ID_HEADER,
    REASON_HEADER,
    MESSAGE_HEADER,
    EXCHANGE_HEADER,
    ROUTING_KEY_HEADER,
    TIME_HEADER,
    REDELIVERED_HEADER,
)

# What the broker writes on a message: of the copy it would be untrue.
_BROKERS_PREFIX: Final = "x-"

# Properties travel in one frame of 128 KiB by default, and the original filled at most that: what leaves no room for
# our headers is not kept.
_KEPT_HEADERS_MAX_BYTES: Final = 64 * 1024
_MESSAGE_MAX_LENGTH: Final = 1000
_NAME_MAX_BYTES: Final = 255


class DeadLetterReason(StrEnum):
    """Why a package is a dead letter.

    Attributes:
        MALFORMED: its body is not a package of its queue.
        REFUSED: the database refuses it as data.
        POISON: a program died while it handled this package and nothing else.
        UNEXPECTED: storing it fails in a way that is not known, each time.
    """

    MALFORMED = "malformed"
    REFUSED = "refused"
    POISON = "poison"
    UNEXPECTED = "unexpected"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter, as read from the dead-letter queue.

    Attributes:
        id: tells it apart from others; "" where a stranger put it there.
        reason: a `DeadLetterReason`, as text.
        message: what was wrong, for people.
        exchange, routing_key: where it was published to.
        time: when it became a dead letter, ISO 8601 in UTC.
        redelivered_count: how often it had been redelivered by then.
        delivery: the message itself.
    """

    id: str
    reason: str
    message: str
    exchange: str
    routing_key: str
    time: str
    redelivered_count: int
    delivery: Delivery


def source_of(delivery: Delivery) -> Source:
    """Returns exchange and routing key that a package was first published to: its own unless it was put aside."""
    exchange, routing_key = delivery.headers.get(EXCHANGE_HEADER), delivery.headers.get(ROUTING_KEY_HEADER)
    if _is_name(exchange) and _is_name(routing_key):
        return str(exchange), str(routing_key)
    return delivery.exchange, delivery.routing_key


def dead_letter(token: str, delivery: Delivery, source: Source, reason: DeadLetterReason, text: str) -> Message:
    """Returns the dead letter of a package.

    Args:
        token: a new token, which becomes the dead letter's id.
        delivery: the package.
        source: the exchange and routing key that it was published to.
        reason: for programs.
        text: for people; no secret, and cut where it is long.
    """
    headers = {
        ID_HEADER: token,
        REASON_HEADER: reason.value,
        MESSAGE_HEADER: text[:_MESSAGE_MAX_LENGTH],
        TIME_HEADER: datetime.now(UTC).isoformat(timespec="milliseconds"),
        REDELIVERED_HEADER: delivery.redelivery_count,
    }
    return _copy(token, delivery, DEAD_LETTER_QUEUE, headers | _source_headers(source))


def read_dead_letter(delivery: Delivery) -> DeadLetter:
    """Returns a message of the dead-letter queue as a dead letter."""
    headers = delivery.headers
    redelivered = headers.get(REDELIVERED_HEADER)
    exchange, routing_key = source_of(delivery)
    return DeadLetter(
        id=str(headers.get(ID_HEADER, "")),
        reason=str(headers.get(REASON_HEADER, "")),
        message=str(headers.get(MESSAGE_HEADER, "")),
        exchange=exchange,
        routing_key=routing_key,
        time=str(headers.get(TIME_HEADER, "")),
        redelivered_count=redelivered if isinstance(redelivered, int) else 0,
        delivery=delivery,
    )


def quarantined(token: str, delivery: Delivery, source: Source) -> Message:
    """Returns the copy of a package that goes to quarantine."""
    return _copy(token, delivery, QUARANTINE_QUEUE, {ID_HEADER: token} | _source_headers(source))


def _source_headers(source: Source) -> dict[str, Any]:
    exchange, routing_key = source
    return {EXCHANGE_HEADER: exchange, ROUTING_KEY_HEADER: routing_key}


def _copy(token: str, delivery: Delivery, queue: str, headers: dict[str, Any]) -> Message:
    return Message(
        token=token,
        exchange="",
        routing_key=queue,
        body=delivery.body,
        content_type=delivery.content_type,
        # Nobody can tell what a reply without a correlation id belongs to, and the copy's would be our token.
        reply_to=delivery.reply_to if delivery.correlation_id else None,
        correlation_id=delivery.correlation_id,
        headers=_kept(delivery.headers) | headers,
    )


def _kept(headers: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in headers.items() if name not in _OURS and not _is_brokers(name)}
    try:
        size_bytes = encode_table([], kept)
    except (AMQPError, ValueError, OverflowError, TypeError, RecursionError):
        return {}
    return kept if size_bytes <= _KEPT_HEADERS_MAX_BYTES else {}


def _is_name(value: object) -> bool:
    # Names of exchanges and queues are that long at most (AMQP 0-9-1, 4.2.5.3), and ours can be printed. What a
    # stranger wrote there would be a line of the log, or fill the copy's headers.
    return isinstance(value, str) and value.isprintable() and len(value.encode()) <= _NAME_MAX_BYTES


def _is_brokers(name: object) -> bool:
    return isinstance(name, str) and name.startswith(_BROKERS_PREFIX)
