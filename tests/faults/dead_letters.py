"""The dead letters that a test expects."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from provgate_broker.dead_letters.messages import (
    EXCHANGE_HEADER,
    MESSAGE_HEADER,
    REASON_HEADER,
    REDELIVERED_HEADER,
    ROUTING_KEY_HEADER,
    TIME_HEADER,
)
from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE, QUARANTINE_QUEUE
from tests.support.packages import AmqpSender, content_queue

# One range, so that good and bad wait in one queue and are stored together.
FIRST_BYTE: Final = 0x21


def assert_dead_letters(sender: AmqpSender, bodies: list[bytes], reason: str, redelivered_counts: set[int]) -> None:
    """Takes the dead letters out: each of some bodies is there once, and nothing else."""
    left = list(bodies)
    while left:
        properties, body = sender.take(DEAD_LETTER_QUEUE)
        left.remove(body)
        headers: dict[str, Any] = dict(properties.headers or {})
        assert headers[REASON_HEADER] == reason
        assert (headers[EXCHANGE_HEADER], headers[ROUTING_KEY_HEADER]) == (
            "content",
            content_queue(bytes([FIRST_BYTE])),
        )
        assert headers[MESSAGE_HEADER]
        assert headers[REDELIVERED_HEADER] in redelivered_counts
        assert abs((datetime.now(UTC) - datetime.fromisoformat(headers[TIME_HEADER])).total_seconds()) < 120
    assert sender.message_count(DEAD_LETTER_QUEUE) == sender.message_count(QUARANTINE_QUEUE) == 0
