"""Packages made by hand, past the gateway: for `FEW_RANGES`, where contents alone are in more than one range."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime

from provgate_stack.stack import StorageConfig
from provgate_storage import get_provenance_storage
from tests.amqp_sender import AmqpSender
from tests.entries import encode_package
from tests.fix_stack import FEW_RANGES

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
    """Returns how many of some contents a database holds."""
    with get_provenance_storage(**storage_config) as storage:
        return len(storage.content_get(ids))
