"""Messages of the dead-letter and the quarantine queue: copies of packages, with headers that name their source.

A copy has the body, properties and headers of the package, and the headers of this module.
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

_OWN_HEADERS: Final = frozenset(
    {
        ID_HEADER,
        REASON_HEADER,
        MESSAGE_HEADER,
        EXCHANGE_HEADER,
        ROUTING_KEY_HEADER,
        TIME_HEADER,
        REDELIVERED_HEADER,
    }
)

# The broker's own headers are about the original, not about its copy.
_BROKER_PREFIX: Final = "x-"

# Properties travel in one frame, of 128 KiB by default, which the original may have filled. Larger headers are dropped,
# so that those of this module fit.
_KEPT_HEADERS_MAX_BYTES: Final = 64 * 1024
_MESSAGE_MAX_LENGTH: Final = 1000
_NAME_MAX_BYTES: Final = 255

Source: TypeAlias = tuple[str, str]
"""The exchange and the routing key that a package was published to."""


class DeadLetterReason(StrEnum):
    """Why a package is a dead letter.

    Attributes:
        MALFORMED: its body is not a package of its queue.
        REFUSED: the database refuses its data.
        POISON: a program died while it handled this package alone.
        UNEXPECTED: each attempt to store it fails, for an unknown reason.
    """

    MALFORMED = "malformed"
    REFUSED = "refused"
    POISON = "poison"
    UNEXPECTED = "unexpected"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message of the dead-letter queue.

    Attributes:
        id: identifies it; "" if another program published it.
        reason: a `DeadLetterReason`, as text.
        message: the reason for people.
        exchange, routing_key: the source of the package.
        time: when it became a dead letter, ISO 8601 in UTC.
        redelivered_count: the redeliveries of the package before that.
        delivery: the message.
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
    """Returns the exchange and routing key that a package was first published to.

    For a copy from the quarantine or dead-letter queue they are in its headers.
    """
    exchange, routing_key = delivery.headers.get(EXCHANGE_HEADER), delivery.headers.get(ROUTING_KEY_HEADER)
    if _is_name(exchange) and _is_name(routing_key):
        return str(exchange), str(routing_key)
    return delivery.exchange, delivery.routing_key


def dead_letter(token: str, delivery: Delivery, source: Source, reason: DeadLetterReason, text: str) -> Message:
    """Returns the dead letter of a package.

    Args:
        token: a new token. It becomes the dead letter's id.
        delivery: the package.
        source: the source of the package.
        reason: for programs.
        text: for people, without secrets; a long text is cut.
    """
    headers = {
        REASON_HEADER: reason.value,
        MESSAGE_HEADER: text[:_MESSAGE_MAX_LENGTH],
        TIME_HEADER: datetime.now(UTC).isoformat(timespec="milliseconds"),
        REDELIVERED_HEADER: delivery.redelivery_count,
    }
    return _copy(token, delivery, DEAD_LETTER_QUEUE, source, headers)


def quarantined(token: str, delivery: Delivery, source: Source) -> Message:
    """Returns the copy of a package for the quarantine queue."""
    return _copy(token, delivery, QUARANTINE_QUEUE, source, {})


def read_dead_letter(delivery: Delivery) -> DeadLetter:
    """Returns the dead letter that a message of the dead-letter queue holds."""
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


def _copy(token: str, delivery: Delivery, queue: str, source: Source, headers: Mapping[str, object]) -> Message:
    exchange, routing_key = source
    own = {ID_HEADER: token, EXCHANGE_HEADER: exchange, ROUTING_KEY_HEADER: routing_key, **headers}
    return Message(
        token=token,
        exchange="",
        routing_key=queue,
        body=delivery.body,
        content_type=delivery.content_type,
        # Without a correlation id the copy is sent with the token as one, and a reply to that would mean nothing.
        reply_to=delivery.reply_to if delivery.correlation_id else None,
        correlation_id=delivery.correlation_id,
        headers=_kept_headers(delivery.headers) | own,
    )


def _kept_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    kept = {
        name: value
        for name, value in headers.items()
        if name not in _OWN_HEADERS and not str(name).startswith(_BROKER_PREFIX)
    }
    try:
        size_bytes = encode_table([], kept)
    except (AMQPError, ValueError, OverflowError, TypeError, RecursionError):
        return {}
    return kept if size_bytes <= _KEPT_HEADERS_MAX_BYTES else {}


def _is_name(value: object) -> bool:
    # The limit of names is in AMQP 0-9-1, 4.2.5.3, and the names of set-up are printable. Another program may have
    # written anything there, and it is logged and copied.
    return isinstance(value, str) and value.isprintable() and len(value.encode()) <= _NAME_MAX_BYTES
