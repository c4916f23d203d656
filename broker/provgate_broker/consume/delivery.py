"""A package as the broker delivers it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from pika.exceptions import AMQPError
from pika.spec import Basic, BasicProperties

from provgate_broker.amqp.connection import AmqpChannel

# Set by the broker on messages of quorum queues: https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling
DELIVERY_COUNT_HEADER: Final = "x-delivery-count"


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """One delivery of a message. Trust nothing in it: its publisher can have written any of it.

    Belongs to the event loop of its channel.

    Attributes:
        queue: the queue that it comes from.
        exchange: the exchange that it was published to; "" is the default one.
        routing_key: the routing key that it was published with.
        body: the body.
        amqp_channel: the channel that it came in. Its delivery ack goes out on that channel.
        delivery_tag: identifies the delivery on its channel.
        redelivered: whether the broker delivered it before.
        content_type, correlation_id, reply_to, message_id: properties; None where missing or not UTF-8.
        headers: AMQP headers.
    """

    queue: str
    exchange: str
    routing_key: str
    body: bytes
    amqp_channel: AmqpChannel
    delivery_tag: int
    redelivered: bool = False
    content_type: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    message_id: str | None = None
    headers: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def redelivery_count(self) -> int:
        """How often the broker delivered it before, by the broker's count."""
        count = self.headers.get(DELIVERY_COUNT_HEADER)
        return count if isinstance(count, int) and count > 0 else 0

    @property
    def in_hand(self) -> bool:
        """Whether this process alone has it. Once its channel is lost the broker delivers it again."""
        return not self.amqp_channel.lost.done()

    def ack(self) -> None:
        """Lets the broker forget it. Does nothing if the channel is lost: the broker delivers it again."""
        # pika refuses to write to a channel that is closing.
        with suppress(AMQPError):
            self.amqp_channel.raw.basic_ack(self.delivery_tag)

    def requeue(self) -> None:
        """Gives it back to its queue. Does nothing if the channel is lost: the queue has it already."""
        with suppress(AMQPError):
            self.amqp_channel.raw.basic_nack(self.delivery_tag, requeue=True)


def delivery_of(
    queue: str,
    amqp_channel: AmqpChannel,
    method: Basic.Deliver | Basic.GetOk,
    properties: BasicProperties,
    body: bytes,
) -> Delivery:
    """Returns the delivery for the arguments that pika passes to a consumer."""
    return Delivery(
        queue=queue,
        exchange=method.exchange or "",
        routing_key=method.routing_key or "",
        body=body,
        amqp_channel=amqp_channel,
        delivery_tag=method.delivery_tag or 0,
        redelivered=bool(method.redelivered),
        content_type=_text(properties.content_type),
        correlation_id=_text(properties.correlation_id),
        reply_to=_text(properties.reply_to),
        message_id=_text(properties.message_id),
        headers=MappingProxyType(properties.headers or {}),
    )


def _text(value: object) -> str | None:
    # pika returns a property that is not UTF-8 as bytes.
    return value if isinstance(value, str) else None
