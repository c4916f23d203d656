"""Packages that are published without the gateway, and a sender that collects their replies."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Self
from uuid import uuid4

import pika
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from pika.spec import Basic, BasicProperties

from provgate_broker.wire.package import CONTENT_TYPE, Reply, decode_reply
from provgate_stack.stack import StorageConfig
from provgate_storage import get_provenance_storage
from tests.support.entries import encode_package
from tests.support.fix_stack import FEW_RANGES

REPLY_S = 60.0


class AmqpSender:
    """Publishes packages, confirmed and mandatory, and collects replies by correlation id."""

    def __init__(self, url: str) -> None:
        self._connection = BlockingConnection(pika.URLParameters(url))
        self.amqp_channel: BlockingChannel = self._connection.channel()
        self.amqp_channel.confirm_delivery()
        declared = self.amqp_channel.queue_declare("", exclusive=True)
        self.queue: str = declared.method.queue
        self.replies: dict[str, list[Reply]] = {}
        self.amqp_channel.basic_consume(self.queue, self._on_message, auto_ack=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def publish(self, exchange: str, routing_key: str, body: bytes, **properties: Any) -> str:
        """Publishes a package and returns its correlation id."""
        correlation_id = uuid4().hex
        given: dict[str, Any] = {
            "content_type": CONTENT_TYPE,
            "correlation_id": correlation_id,
            "reply_to": self.queue,
            "delivery_mode": 2,
        } | properties
        self.amqp_channel.basic_publish(exchange, routing_key, body, BasicProperties(**given), mandatory=True)
        return correlation_id

    def wait_until(self, true: Callable[[], bool], timeout_s: float = REPLY_S) -> None:
        """Handles replies until something is true."""
        deadline = time.monotonic() + timeout_s
        while not true():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {timeout_s} s; replies so far: {len(self.replies)}")
            self._connection.process_data_events(0.02)

    def replies_to(self, *correlation_ids: str, timeout_s: float = REPLY_S) -> list[Reply]:
        """Waits for the first reply to each, and returns them."""
        self.wait_until(lambda: all(id in self.replies for id in correlation_ids), timeout_s)
        return [self.replies[id][0] for id in correlation_ids]

    def call(self, exchange: str, routing_key: str, body: bytes, **properties: Any) -> Reply:
        """Publishes a package and returns its reply."""
        return self.replies_to(self.publish(exchange, routing_key, body, **properties))[0]

    def message_count(self, queue: str) -> int:
        """Returns the number of messages that wait in a queue."""
        count: int = self.amqp_channel.queue_declare(queue, passive=True).method.message_count
        return count

    def take(self, queue: str) -> tuple[BasicProperties, bytes]:
        """Takes a message out of a queue, as soon as there is one."""
        deadline = time.monotonic() + REPLY_S
        while time.monotonic() < deadline:
            method, properties, body = self.amqp_channel.basic_get(queue, auto_ack=True)
            if method is not None and properties is not None and body is not None:
                return properties, body
            self._connection.process_data_events(0.02)
        raise TimeoutError(f"{queue} stays empty")

    def _on_message(
        self, _channel: BlockingChannel, _method: Basic.Deliver, properties: BasicProperties, body: bytes
    ) -> None:
        self.replies.setdefault(str(properties.correlation_id), []).append(decode_reply(body))


DATE = datetime(2020, 1, 2, tzinfo=UTC)


def content_ids(count: int, prefix: str = "", first_byte: int | None = None) -> list[bytes]:
    """Returns ids of all ranges, or with one first byte."""
    ids = [hashlib.sha1(f"{prefix}{number}".encode()).digest() for number in range(count)]
    return ids if first_byte is None else [bytes([first_byte]) + id[1:] for id in ids]


def content_queue(id: bytes) -> str:
    """Returns the queue of a content, which is its routing key too."""
    return f"content_add.unknown.{id[0] * FEW_RANGES['content'] // 256:x}"


def publish(sender: AmqpSender, ids: Iterable[bytes], package_size: int = 100) -> list[str]:
    """Publishes contents in packages, by range, and returns their correlation ids."""
    by_queue: dict[str, list[bytes]] = {}
    for id in ids:
        by_queue.setdefault(content_queue(id), []).append(id)
    return [
        sender.publish("content", queue, encode_package((id, DATE) for id in members[start : start + package_size]))
        for queue, members in by_queue.items()
        for start in range(0, len(members), package_size)
    ]


def stored_count(storage_config: StorageConfig, ids: Iterable[bytes]) -> int:
    """Returns the number of these contents that a database holds."""
    with get_provenance_storage(**storage_config) as storage:
        return len(storage.content_get(ids))
