"""Publishes with confirms: each message ends as confirmed, nacked, or returned and confirmed."""

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

# The bound on messages that pika has copied and not sent. The system's socket buffers hold some MiB more, so that the
# broker always has something to read.
_UNSENT_MAX_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Message:
    """A message to publish.

    Attributes:
        token: identifies the message among all unconfirmed ones. It is sent as `correlation_id`, or as `message_id` if
            there is a correlation id.
        exchange: the exchange; "" is the default one.
        routing_key: the routing key.
        body: the body.
        content_type: of the body.
        reply_to: the queue for the reply; None if no reply is wanted.
        correlation_id: the correlation id; None sends the token.
        headers: AMQP headers.
        mandatory: whether the broker returns the message if no queue takes it. If False, it confirms such a message.
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
    """The events of a publisher. All calls come from its event loop; a listener may publish in them."""

    def publisher_ready(self) -> None:
        """The publisher takes messages: it has connected, the broker unblocked it, or enough has been sent."""

    def publisher_blocked(self) -> None:
        """The broker blocks publishes. Publish nothing more; published messages wait for their confirms."""

    def publisher_lost(self) -> None:
        """The connection is lost. Unconfirmed messages stay unconfirmed; the broker may have got them or not."""

    def confirmed(self, token: str) -> None:
        """The broker has stored a message safely in every queue that it goes to."""

    def nacked(self, token: str) -> None:
        """The broker refuses a message, without a reason. Mostly its queue is full."""

    def returned(self, token: str, exchange: str, routing_key: str) -> None:
        """No queue takes a mandatory message. `confirmed` follows for it."""


class Publisher:
    """Publishes on a connection of its own, with confirms. Belongs to one event loop.

    It keeps no bodies: after a loss the listener publishes unconfirmed messages again.

    Attributes:
        last_loss: why the last connection was lost; None before the first loss.
    """

    def __init__(self, parameters: AmqpParameters, name: str, listener: PublisherListener) -> None:
        self._link = AmqpLink(parameters, name, self.serve)
        self._listener = listener
        self.last_loss: ConnectionLostError | None = None
        self._session: AmqpSession | None = None
        self._last_tag = 0
        # Whether the bound on unsent bytes was reached. Unsent messages are unconfirmed, so a confirm follows.
        self._behind = False
        # Tokens by delivery tag, in ascending order. An OrderedDict finds its first key at once, also after many
        # removals at its start; a plain dict does not.
        self._unconfirmed: OrderedDict[int, str] = OrderedDict()

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._session is not None

    @property
    def blocked(self) -> bool:
        """Whether there is a connection and the broker blocks it."""
        return self._session is not None and self._session.blocked

    @property
    def ready(self) -> bool:
        """Whether messages should be published now."""
        return self._session is not None and not self._session.blocked and not self._behind

    async def run(self) -> None:
        """Keeps the connection until it is cancelled."""
        await self._link.run()

    def publish(self, message: Message) -> None:
        """Publishes a message. The listener is called with its token later.

        Without a connection nothing is published: `publisher_lost` has been called, or will be. If pika cannot encode
        the message, pika's error is raised and nothing is published.
        """
        session = self._session
        if session is None or not session.is_open:
            return
        try:
            session.amqp_channel.raw.basic_publish(
                message.exchange, message.routing_key, message.body, message.properties(), message.mandatory
            )
        except ChannelWrongStateError:
            # The channel is closing, and `publisher_lost` follows.
            return
        # The broker numbers the messages that reach it. One that raised got no number.
        self._last_tag += 1
        self._unconfirmed[self._last_tag] = message.token
        self._behind = session.unsent_bytes >= _UNSENT_MAX_BYTES

    async def serve(self, session: AmqpSession) -> None:
        """Publishes on a session until it is lost, and raises `ConnectionLostError`. `run` calls it for each one."""
        raw = session.amqp_channel.raw
        raw.add_on_return_callback(self._on_return)
        await session.amqp_channel.call(lambda callback: raw.confirm_delivery(self._on_confirm, callback=callback))
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
        notify = self._listener.confirmed if isinstance(method, Basic.Ack) else self._listener.nacked
        for token in self._take(method.delivery_tag, method.multiple):
            notify(token)
        session = self._session
        if self._behind and session is not None and session.unsent_bytes < _UNSENT_MAX_BYTES // 2:
            self._behind = False
            if self.ready:
                self._listener.publisher_ready()

    def _take(self, delivery_tag: int, multiple: bool) -> list[str]:
        """Removes and returns the tokens that a confirm covers: its tag's, or with `multiple` all up to its tag."""
        tokens: list[str] = []
        if not multiple:
            if delivery_tag in self._unconfirmed:
                tokens.append(self._unconfirmed.pop(delivery_tag))
            return tokens
        while self._unconfirmed and next(iter(self._unconfirmed)) <= delivery_tag:
            tokens.append(self._unconfirmed.popitem(last=False)[1])
        return tokens

    def _on_return(self, _channel: Channel, method: Basic.Return, properties: BasicProperties, _body: bytes) -> None:
        token = properties.message_id or properties.correlation_id
        if token is not None:
            self._listener.returned(token, method.exchange or "", method.routing_key or "")
