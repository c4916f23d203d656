"""Publishing with confirms."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol

from pika.channel import Channel
from pika.exceptions import ChannelWrongStateError
from pika.frame import Method
from pika.spec import Basic, BasicProperties

from provgate_broker.amqp.connection import AmqpParameters, AmqpSession
from provgate_broker.amqp.link import AmqpLink
from provgate_broker.errors import ConnectionLostError

_PERSISTENT: Final = 2

# What pika may hold copies of. The system's buffers hold some MiB more, so that the broker is never short of messages.
_UNSENT_MAX_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Message:
    """What is published.

    Attributes:
        token: tells the message apart from all others that are not confirmed; goes out as `correlation_id`, or as
            `message_id` where a correlation id is given beside it.
        exchange: the exchange; "" for the default one.
        routing_key: the routing key.
        body: the body.
        content_type: of the body.
        reply_to: the queue that takes the reply; None where none is wanted.
        correlation_id: where it is not the token.
        headers: AMQP headers.
        mandatory: whether the broker returns the message when no queue takes it. Without, such a message is confirmed.
        persistent: whether the message survives a restart of the broker.
    """

    token: str
    exchange: str
    routing_key: str
    body: bytes
    content_type: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    headers: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    mandatory: bool = True
    persistent: bool = True

    def properties(self) -> BasicProperties:
        """Returns the AMQP properties."""
        return BasicProperties(
            content_type=self.content_type,
            correlation_id=self.correlation_id or self.token,
            message_id=self.token if self.correlation_id else None,
            reply_to=self.reply_to,
            headers=dict(self.headers) or None,
            delivery_mode=_PERSISTENT if self.persistent else None,
        )


class PublisherListener(Protocol):
    """What a publisher tells. All calls come from the publisher's event loop, and may publish."""

    def publisher_ready(self) -> None:
        """Messages are taken: the publisher has connected, the broker has unblocked it, or it has caught up."""

    def publisher_blocked(self) -> None:
        """The broker holds publishes back. What was published waits for its confirm, no more should be published."""

    def publisher_lost(self) -> None:
        """The connection is gone. What is not confirmed never will be; it may or may not have reached the broker."""

    def confirmed(self, token: str) -> None:
        """The broker has a message safe, in every queue that it goes to."""

    def nacked(self, token: str) -> None:
        """The broker refuses a message, and does not say why: its queue is full, mostly."""

    def returned(self, token: str, exchange: str, routing_key: str) -> None:
        """No queue takes a mandatory message. A `confirmed` for it follows."""


class Publisher:
    """Publishes over a connection of its own, each message confirmed by the broker.

    Belongs to one event loop. It keeps no bodies: what is not confirmed when the connection is lost is the listener's
    to publish again.

    Attributes:
        last_loss: why the connection was lost last; None where it never was.
    """

    def __init__(self, parameters: AmqpParameters, name: str, listener: PublisherListener) -> None:
        self._link = AmqpLink(parameters, name, self._serve)
        self._listener = listener
        self.last_loss: ConnectionLostError | None = None
        self._session: AmqpSession | None = None
        self._last_tag = 0
        # Whether as much is unsent as may be. What is unsent is unconfirmed, so that a confirm comes when it was sent.
        self._behind = False
        # Tokens by delivery tag, in the order of the tags. A confirm with `multiple` covers all up to its tag.
        # The first of a plain dict is found by a walk over all that were taken from it before.
        self._unconfirmed: OrderedDict[int, str] = OrderedDict()

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._session is not None

    @property
    def blocked(self) -> bool:
        """Whether there is a connection and the broker holds its publishes back."""
        return self._session is not None and self._session.blocked

    @property
    def ready(self) -> bool:
        """Whether messages should be published now."""
        return self._session is not None and not self._session.blocked and not self._behind

    async def run(self) -> None:
        """Keeps the connection until it is cancelled."""
        await self._link.run()

    def publish(self, message: Message) -> None:
        """Publishes a message; its fate is told to the listener.

        Where there is no connection, or it breaks here, the message is not published, and `publisher_lost` says or has
        said so. A message that pika cannot encode is not published either, and pika's error is raised.
        """
        session = self._session
        if session is None or not session.is_open:
            return
        try:
            session.amqp_channel.raw.basic_publish(
                message.exchange, message.routing_key, message.body, message.properties(), message.mandatory
            )
        except ChannelWrongStateError:
            # The channel is closing: the session is about to be lost, and the listener to be told.
            return
        # The broker numbers what reaches it: no number is taken for what raised.
        self._last_tag += 1
        self._unconfirmed[self._last_tag] = message.token
        self._behind = session.unsent_bytes >= _UNSENT_MAX_BYTES

    async def _serve(self, session: AmqpSession) -> None:
        session.amqp_channel.raw.add_on_return_callback(self._on_return)
        await session.call(
            lambda callback: session.amqp_channel.raw.confirm_delivery(self._on_confirm, callback=callback)
        )
        self._last_tag = 0
        self._unconfirmed.clear()
        self._behind = False
        session.on_blocked(self._on_blocked)
        self._session = session
        if not session.blocked:
            self._listener.publisher_ready()
        try:
            await session.wait_lost()
        except ConnectionLostError as error:
            self.last_loss = error
            raise
        finally:
            self._session = None
            self._unconfirmed.clear()
            self._listener.publisher_lost()

    def _on_blocked(self, blocked: bool) -> None:
        if blocked:
            self._listener.publisher_blocked()
        else:
            self._listener.publisher_ready()

    def _on_confirm(self, frame: Method[Basic.Ack | Basic.Nack]) -> None:
        method = frame.method
        tell = self._listener.confirmed if isinstance(method, Basic.Ack) else self._listener.nacked
        for token in self._take(method.delivery_tag, method.multiple):
            tell(token)
        session = self._session
        if self._behind and session is not None and session.unsent_bytes < _UNSENT_MAX_BYTES // 2:
            self._behind = False
            if self.ready:
                self._listener.publisher_ready()

    def _take(self, delivery_tag: int, multiple: bool) -> list[str]:
        if not multiple:
            token = self._unconfirmed.pop(delivery_tag, None)
            return [] if token is None else [token]
        covered = []
        for tag in self._unconfirmed:
            if tag > delivery_tag:
                break
            covered.append(tag)
        return [self._unconfirmed.pop(tag) for tag in covered]

    def _on_return(self, _channel: Channel, method: Basic.Return, properties: BasicProperties, _body: bytes) -> None:
        token = properties.message_id or properties.correlation_id
        if token is not None:
            self._listener.returned(token, method.exchange or "", method.routing_key or "")
