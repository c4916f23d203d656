"""Receives the workers' replies in a queue of the gateway's own."""

from __future__ import annotations

import logging
from typing import Protocol

from pika.channel import Channel
from pika.spec import Basic, BasicProperties

from provgate_broker.amqp.connection import AmqpParameters, AmqpSession
from provgate_broker.amqp.link import AmqpLink
from provgate_broker.errors import ConnectionLostError, MalformedPackageError
from provgate_broker.topology.declaration import QueueState, queue_state
from provgate_broker.wire.package import Reply, decode_reply

logger = logging.getLogger(__name__)


class ReplyListener(Protocol):
    """The events of a reply consumer. All calls come from its event loop."""

    def reply_queue_ready(self) -> None:
        """A reply queue exists and is consumed."""

    def reply_queue_lost(self) -> None:
        """The reply queue no longer exists, and every reply that was on its way to it is lost."""

    def replied(self, correlation_id: str, reply: Reply) -> None:
        """A worker has replied."""


class ReplyConsumer:
    """Consumes a reply queue, on a connection of its own. Belongs to one event loop.

    The queue is exclusive and named by the broker: it exists as long as the connection, and nobody else can read it.

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
        """Returns the state of any queue, or None if it does not exist.

        It is asked on this connection because an alarm blocks connections that publish.

        Raises:
            ConnectionLostError: there is no connection, or it broke.
        """
        if self._session is None:
            raise ConnectionLostError("there is no connection")
        return await queue_state(self._session, name)

    async def _serve(self, session: AmqpSession) -> None:
        amqp_channel = session.amqp_channel
        queue = (await amqp_channel.declare_queue("", exclusive=True)).queue
        # The broker cancels the consumer if the queue is deleted. The link then makes a new session and a new queue.
        amqp_channel.raw.add_on_cancel_callback(lambda _: amqp_channel.raw.close())
        # No delivery acks: the queue ends with the connection, so nothing could be redelivered.
        await amqp_channel.consume(queue or "", self._on_message, exclusive=True)
        self.queue, self._session = queue, session
        self._listener.reply_queue_ready()
        try:
            await session.wait_lost()
        finally:
            self.queue = self._session = None
            self._listener.reply_queue_lost()

    def _on_message(self, _channel: Channel, _method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        correlation_id = properties.correlation_id
        try:
            reply = decode_reply(body)
        except MalformedPackageError as error:
            extra = {"action": "reply.ignore", "reason": str(error), "correlation_id": correlation_id}
            logger.warning("a reply is ignored: %s", error, extra=extra)
            return
        if correlation_id is not None:
            self._listener.replied(correlation_id, reply)
