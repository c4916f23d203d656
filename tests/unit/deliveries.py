"""Deliveries without a broker."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

from provgate_broker.amqp.connection import AmqpChannel
from provgate_broker.consume.delivery import Delivery


class FakeAmqpChannel:
    """Writes down what becomes of the deliveries of a channel."""

    def __init__(self) -> None:
        self.acked: list[int] = []
        self.requeued: list[int] = []
        self.is_lost = False
        self.lost = SimpleNamespace(done=lambda: self.is_lost)
        self.raw = SimpleNamespace(
            basic_ack=self.acked.append, basic_nack=lambda delivery_tag, requeue: self.requeued.append(delivery_tag)
        )


def delivery(
    queue: str = "content_add.unknown.a",
    body: bytes = b"body",
    *,
    amqp_channel: FakeAmqpChannel | None = None,
    delivery_tag: int = 1,
    redelivered: bool = False,
    correlation_id: str | None = "correlation",
    reply_to: str | None = "amq.gen-queue",
    headers: Mapping[str, Any] | None = None,
) -> Delivery:
    """Returns a delivery of a work queue."""
    return Delivery(
        queue=queue,
        exchange="content",
        routing_key=queue,
        body=body,
        amqp_channel=cast("AmqpChannel", amqp_channel or FakeAmqpChannel()),
        delivery_tag=delivery_tag,
        redelivered=redelivered,
        content_type="application/msgpack",
        correlation_id=correlation_id,
        reply_to=reply_to,
        headers=headers or {},
    )
