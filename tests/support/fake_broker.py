"""A broker for tests of the dispatcher and its callers: it keeps the published messages, and the test replies."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry

from provgate_broker.amqp.connection import AmqpParameters
from provgate_broker.consume.reply_consumer import ReplyConsumer, ReplyListener
from provgate_broker.errors import ConnectionLostError
from provgate_broker.publish.publisher import Message, Publisher, PublisherListener
from provgate_broker.topology.declaration import QueueState
from provgate_broker.topology.policy import Exchange
from provgate_gateway.metrics import GatewayMetrics
from provgate_gateway.publish.dispatcher import Dispatcher
from provgate_gateway.publish.ledger import PackageEvent
from provgate_gateway.write.splitting import Package


class FakePublisher(Publisher):
    """Keeps the published messages. A test sets the state and calls the listener.

    Attributes:
        published: in order.
    """

    def __init__(self, _parameters: AmqpParameters, _name: str, _listener: PublisherListener) -> None:
        self.is_connected = False
        self.is_blocked = False
        self.last_loss: ConnectionLostError | None = None
        self.published: list[Message] = []

    @property
    def connected(self) -> bool:
        return self.is_connected

    @property
    def blocked(self) -> bool:
        return self.is_blocked

    @property
    def ready(self) -> bool:
        return self.is_connected and not self.is_blocked

    async def run(self) -> None:
        pass

    def publish(self, message: Message) -> None:
        self.published.append(message)


class FakeReplyConsumer(ReplyConsumer):
    """A consumer with a reply queue from the start.

    Attributes:
        queue_answer: the state of a queue that the broker answers, or the error that it raises. With a `TimeoutError`
            it never answers.
        asked: the queues whose state was asked for.
    """

    def __init__(self, _parameters: AmqpParameters, _name: str, _listener: ReplyListener) -> None:
        self.queue = "amq.gen-replies"
        self.queue_answer: QueueState | Exception | None = None
        self.asked: list[str] = []

    async def run(self) -> None:
        pass

    async def queue_state(self, name: str) -> QueueState | None:
        self.asked.append(name)
        if isinstance(self.queue_answer, TimeoutError):
            await asyncio.Event().wait()
        if isinstance(self.queue_answer, Exception):
            raise self.queue_answer
        return self.queue_answer


class FakeBroker:
    """A dispatcher with fake connections.

    Attributes:
        registry: the registry of the metrics.
        changes: whether the dispatcher was connected, at each change that it reported.
    """

    def __init__(self, *, queue_max_bytes: int | None = None) -> None:
        self.registry = CollectorRegistry()
        self.metrics = GatewayMetrics(self.registry)
        self.changes: list[bool] = []
        self.dispatcher = Dispatcher(
            AmqpParameters("amqp://nowhere/", 10),
            "test",
            self.metrics,
            queue_max_bytes=queue_max_bytes,
            on_change=self._note_change,
            new_publisher=self._new_publisher,
            new_reply_consumer=self._new_reply_consumer,
        )

    def _new_publisher(self, parameters: AmqpParameters, name: str, listener: PublisherListener) -> FakePublisher:
        self.publisher = FakePublisher(parameters, name, listener)
        return self.publisher

    def _new_reply_consumer(self, parameters: AmqpParameters, name: str, listener: ReplyListener) -> FakeReplyConsumer:
        self.replies = FakeReplyConsumer(parameters, name, listener)
        return self.replies

    def _note_change(self) -> None:
        self.changes.append(self.dispatcher.connected)

    @property
    def tokens(self) -> list[str]:
        """The tokens of the published messages, in order."""
        return [message.token for message in self.publisher.published]

    def connect(self) -> None:
        self.publisher.is_connected = True
        self.dispatcher.publisher_ready()

    def lose_publisher(self, loss: ConnectionLostError | None = None) -> None:
        self.publisher.is_connected = False
        self.publisher.last_loss = loss
        self.dispatcher.publisher_lost()

    def lose_reply_queue(self) -> None:
        self.replies.queue = None
        self.dispatcher.reply_queue_lost()

    def renew_reply_queue(self) -> None:
        self.replies.queue = "amq.gen-other-replies"
        self.dispatcher.reply_queue_ready()

    def store_all(self) -> None:
        """Confirms and acks everything that was published."""
        for token in self.tokens:
            self.dispatcher.confirmed(token)
            # More than any package holds.
            self.dispatcher.replied(token, 10**9)


def package_of(entry_count: int = 1, body: bytes = b"") -> Package:
    return Package(Exchange.CONTENT, "content_add.unknown.0", body, entry_count)


class FakeOwner:
    """A call that keeps the events of its packages."""

    def __init__(self) -> None:
        self.events: list[PackageEvent] = []

    def handle(self, event: PackageEvent) -> None:
        self.events.append(event)

    @property
    def happened(self) -> list[str]:
        """The names of the events."""
        return [type(event).__name__ for event in self.events]
