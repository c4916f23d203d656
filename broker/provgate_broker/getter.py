"""Taking single messages of queues that nobody consumes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pika.channel import Channel
from pika.spec import Basic

from provgate_broker.delivery import Delivery, delivery_of
from provgate_broker.errors import ConnectionLostError
from provgate_broker.session import AmqpChannel, AmqpSession


class Getter:
    """Takes messages one by one, over a channel of its own on somebody's session. Belongs to one event loop.

    What is taken is in hand until it is acked or requeued, or the session ends. One call at a time.

    Attributes:
        session: the session; None while there is none.
    """

    def __init__(self, session: AmqpSession | None = None) -> None:
        self.session = session
        self._amqp_channel: AmqpChannel | None = None
        self._tell_empty: Callable[[], None] = lambda: None

    async def message_count(self, queue: str) -> int:
        """Returns how many messages wait in a queue.

        Raises:
            ConnectionLostError: there is no connection or no such queue.
        """
        amqp_channel = await self._channel()
        declared = await amqp_channel.call(
            lambda callback: amqp_channel.raw.queue_declare(queue, passive=True, callback=callback)
        )
        count: int = declared.method.message_count
        return count

    async def get(self, queue: str) -> Delivery | None:
        """Returns the next message of a queue; None where none waits.

        Raises:
            ConnectionLostError: there is no connection or no such queue.
        """
        amqp_channel = await self._channel()
        taken: tuple[Any, ...] = await amqp_channel.call(
            lambda answer: self._start_get(amqp_channel.raw, queue, answer)
        )
        return delivery_of(queue, amqp_channel, *taken) if taken else None

    def _start_get(self, raw: Channel, queue: str, answer: Callable[[tuple[Any, ...]], None]) -> None:
        self._tell_empty = lambda: answer(())
        raw.basic_get(queue, lambda _channel, method, properties, body: answer((method, properties, body)))

    async def _channel(self) -> AmqpChannel:
        if self.session is None:
            raise ConnectionLostError("there is no connection")
        # A channel of an earlier session is lost with it.
        if self._amqp_channel is None or self._amqp_channel.lost.done():
            self._amqp_channel = await self.session.open_channel()
            # pika tells the callback of basic_get nothing of an empty queue.
            self._amqp_channel.raw.add_callback(lambda _: self._tell_empty(), [Basic.GetEmpty], one_shot=False)
        return self._amqp_channel
