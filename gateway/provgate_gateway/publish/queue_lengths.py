"""Whether a queue of the broker is full: the probable cause of a nack, which itself gives none.

RabbitMQ sends a nack when a queue is at its length limit, and in other cases too: its process ends, or an operator's
policy has a limit. Over AMQP the broker reports how many messages are ready in a queue, not how many bytes, so the size
of a package is estimated from those published to the queue last. Only ready messages count toward a queue's length
(https://www.rabbitmq.com/docs/maxlength).
"""

from __future__ import annotations

import asyncio
from typing import Final

from provgate_broker.consume.reply_consumer import ReplyConsumer
from provgate_broker.errors import ConnectionLostError
from provgate_gateway.write.splitting import Package

# A full queue takes messages again below four fifths of its length, and the size of a package is an estimate.
_FULL_FROM: Final = 0.5

_ANSWER_TIMEOUT_S: Final = 2.0

# The weight of the latest package of a queue in the mean size is one part in this many.
_MEAN_WEIGHT: Final = 16


class QueueLengths:
    """Estimates how full queues are. Belongs to one event loop.

    Args:
        replies: asks the broker. An alarm does not block its connection, since it publishes nothing.
        queue_max_bytes: the length limit of each queue; None if it is not known.
    """

    def __init__(self, replies: ReplyConsumer, queue_max_bytes: int | None) -> None:
        self._replies = replies
        self._queue_max_bytes = queue_max_bytes
        self._mean_bytes: dict[str, float] = {}

    def note_published(self, package: Package) -> None:
        """Notes the size of a package."""
        size_bytes = len(package.body)
        mean_bytes = self._mean_bytes.get(package.routing_key, size_bytes)
        self._mean_bytes[package.routing_key] = mean_bytes + (size_bytes - mean_bytes) / _MEAN_WEIGHT

    async def is_full(self, queue: str) -> bool:
        """Returns whether a queue is full; False if that is not known."""
        if self._queue_max_bytes is None:
            return False
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                state = await self._replies.queue_state(queue)
        except (ConnectionLostError, TimeoutError):
            return False
        ready_count = 0 if state is None else state.message_count
        return ready_count * self._mean_bytes.get(queue, 0.0) >= _FULL_FROM * self._queue_max_bytes
