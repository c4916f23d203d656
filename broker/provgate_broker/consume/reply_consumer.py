"""Receiving the workers' replies."""

from __future__ import annotations

import logging
from typing import Protocol

from pika.channel import Channel
from pika.spec import Basic, BasicProperties

from provgate_broker.amqp.connection import AmqpParameters, AmqpSession, questions
from provgate_broker.amqp.link import AmqpLink
from provgate_broker.errors import ConnectionLostError, MalformedPackageError
from provgate_broker.topology.declaration import QueueState, queue_state
from provgate_broker.wire.package import Reply, decode_reply

logger = logging.getLogger(__name__)


class ReplyListener(Protocol):
    """What a reply consumer tells. All calls come from its event loop."""

    def reply_queue_ready(self) -> None:
        """There is a reply queue, and it is consumed."""

    def reply_queue_lost(self) -> None:
        """The reply queue is gone, with every reply that was on its way to it."""

    def replied(self, correlation_id: str, reply: Reply) -> None:
        """A worker has replied."""


class ReplyConsumer:
    """Consumes a reply queue of its own, on a connection of its own. Belongs to one event loop.

    The queue is exclusive and named by the broker: it lives as long as the connection, and nobody else can read it.

    Attributes:
        queue: the name of the queue; None while there is none.
    """

    def __init__(self, parameters: AmqpParameters, name: str, listener: ReplyListener) -> None:
        self._link = AmqpLink(parameters, name, self._serve)
        self._listener = listener
        self._session: AmqpSession | None = None
        self.queue: str | None = None

    async def run(self) -> None:
        """Keeps connection and queue until it is cancelled."""
        await self._link.run()

    async def queue_state(self, name: str) -> QueueState | None:
        """Returns the state of any queue; None where there is none. Asked here, where an alarm blocks no question.

        Raises:
            ConnectionLostError: there is no connection, or it broke.
        """
        if self._session is None:
            raise ConnectionLostError("there is no connection")
        async with questions(self._session) as asked:
            return await queue_state(asked, name)

    async def _serve(self, session: AmqpSession) -> None:
        amqp_channel = session.amqp_channel.raw
        declared = await session.call(
            lambda callback: amqp_channel.queue_declare("", exclusive=True, callback=callback)
        )
        queue: str = declared.method.queue
        # The broker cancels a consumer whose queue is deleted: the session is given up then, and a new queue made.
        amqp_channel.add_on_cancel_callback(lambda _: amqp_channel.close())
        # No delivery acks: the queue dies with the connection, so that there is nothing to redeliver.
        await session.call(
            lambda callback: amqp_channel.basic_consume(
                queue, self._on_message, auto_ack=True, exclusive=True, callback=callback
            )
        )
        self.queue, self._session = queue, session
        self._listener.reply_queue_ready()
        try:
            await session.wait_lost()
        finally:
            self.queue = self._session = None
            self._listener.reply_queue_lost()

    def _on_message(self, _channel: Channel, _method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        try:
            reply = decode_reply(body)
        except MalformedPackageError as error:
            logger.warning(
                "a reply is ignored: %s",
                error,
                extra={
                    "action": "reply.ignore",
                    "reason": str(error),
                    "correlation_id": properties.correlation_id,
                },
            )
            return
        if properties.correlation_id is not None:
            self._listener.replied(properties.correlation_id, reply)
