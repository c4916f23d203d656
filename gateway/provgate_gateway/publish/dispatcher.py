"""Publishes packages to the workers' queues, and tells each call what becomes of its packages.

The life of a package, from `submit` on:

- It waits until the publisher is connected and not blocked and there is a reply queue. `_publish_slice` publishes it.
- `confirmed`: the broker has it. `returned` or `nacked`: the broker does not take it, and its call fails.
- `replied`: a worker has committed it (acked), or refuses it, and its call fails.
- A lost connection makes it wait again: a lost publisher if it is not confirmed, a lost reply queue in any case, since
  its reply may be lost.
- `drop` forgets it when its call ends.

The ledger keeps the state and returns what happened as events; `_act_on` counts and logs each and hands it to its call.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from types import MappingProxyType
from typing import Final

from provgate_broker.amqp.connection import NOT_FOUND, AmqpParameters
from provgate_broker.consume.reply_consumer import ReplyConsumer, ReplyListener
from provgate_broker.publish.publisher import Message, Publisher, PublisherListener
from provgate_broker.wire.package import CONTENT_TYPE, NACK_HEADER, Reply
from provgate_gateway.metrics import GatewayMetrics
from provgate_gateway.publish.ledger import (
    Acked,
    BrokerRefused,
    Confirmed,
    Ledger,
    PackageEvent,
    PackageOwner,
    Published,
    Refused,
    Returned,
)
from provgate_gateway.publish.queue_lengths import QueueLengths
from provgate_gateway.write.splitting import Package
from provgate_runtime.watch.conditions import Condition

logger = logging.getLogger(__name__)

_SLICE_COUNT: Final = 500
_HEADERS: Final = MappingProxyType({NACK_HEADER: True})


class Dispatcher:
    """The gateway's one publisher and one reply consumer, for all calls. Belongs to one event loop.

    Args:
        parameters: where the broker is.
        name: what the broker shows for the two connections.
        metrics: counts what becomes of packages.
        sum_replies: as for `Ledger`.
        queue_max_bytes: as for `QueueLengths`.
        on_change: called when the broker becomes reachable or stops being so.
        new_publisher, new_reply_consumer: make the two connections.
    """

    def __init__(
        self,
        parameters: AmqpParameters,
        name: str,
        metrics: GatewayMetrics,
        *,
        sum_replies: bool = False,
        queue_max_bytes: int | None = None,
        on_change: Callable[[], None] = lambda: None,
        new_publisher: Callable[[AmqpParameters, str, PublisherListener], Publisher] = Publisher,
        new_reply_consumer: Callable[[AmqpParameters, str, ReplyListener], ReplyConsumer] = ReplyConsumer,
    ) -> None:
        self._ledger = Ledger(sum_replies=sum_replies)
        self._next_slice: asyncio.Handle | None = None
        self._publisher = new_publisher(parameters, f"{name} publisher", self)
        self._replies = new_reply_consumer(parameters, f"{name} replies", self)
        self._queue_lengths = QueueLengths(self._replies, queue_max_bytes)
        # By queue, one package of each call: however many are refused, the broker is asked once, and a call fails once.
        self._broker_refused: dict[str, dict[PackageOwner, BrokerRefused]] = {}
        self._any_broker_refused = asyncio.Event()
        self._on_change = on_change
        self._metrics = metrics
        metrics.show_broker(
            lambda: self._publisher.connected, lambda: self._replies.queue is not None, lambda: self._publisher.blocked
        )
        self._logged_blocked = False
        self._was_connected = False

    @property
    def connected(self) -> bool:
        """Whether packages can reach the broker and replies come back."""
        return self._publisher.connected and self._replies.queue is not None

    @property
    def blocked(self) -> bool:
        """Whether the broker blocks the publisher."""
        return self._publisher.blocked

    def conditions(self) -> list[Condition]:
        """Returns whether the broker can be reached; on any thread."""
        problem = None
        if not self._publisher.connected:
            loss = self._publisher.last_loss
            problem = "no connection to publish on" + (f", the last one was lost: {loss}" if loss else "")
        elif self._replies.queue is None:
            problem = "no reply queue"
        return [Condition("broker", problem)]

    async def run(self) -> None:
        """Keeps the connections until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._publisher.run())
            group.create_task(self._replies.run())
            group.create_task(self._explain_broker_refusals())

    def submit(self, packages: Iterable[Package], owner: PackageOwner) -> None:
        """Takes packages of a call, and publishes them as soon as the broker takes them."""
        self._ledger.add(packages, owner)
        self._publish_waiting()

    def drop(self, owner: PackageOwner) -> None:
        """Forgets the packages of a call: those that wait are never published, and no event comes for the others."""
        self._ledger.drop(owner)
        for refused in self._broker_refused.values():
            refused.pop(owner, None)

    def publisher_ready(self) -> None:
        """The publisher takes messages."""
        if self._logged_blocked:
            self._logged_blocked = False
            logger.info("the broker takes publishes again", extra={"action": "broker.block", "state": "working"})
        self._note_connection()
        self._publish_waiting()

    def publisher_blocked(self) -> None:
        """The broker blocks the publisher."""
        self._logged_blocked = True
        logger.warning("the broker blocks publishers", extra={"action": "broker.block", "state": "failing"})

    def publisher_lost(self) -> None:
        """The publisher's connection is lost: what is not confirmed may not have reached the broker."""
        # The broker closes the channel over a missing exchange: published again, the package would close the next
        # channel too. RabbitMQ's text: NOT_FOUND - no exchange 'content' in vhost '/'.
        loss, missing_exchange = self._publisher.last_loss, None
        if loss is not None and loss.reply_code == NOT_FOUND:
            _, _, text = str(loss).partition("no exchange '")
            missing_exchange = text.partition("'")[0]
        for event in self._ledger.republish_unconfirmed(missing_exchange):
            event.owner.handle(event)
        self._note_connection()

    def reply_queue_ready(self) -> None:
        """Replies can come."""
        self._note_connection()
        self._publish_waiting()

    def reply_queue_lost(self) -> None:
        """The reply queue is lost, with the replies on their way to it."""
        self._ledger.republish_all()
        self._note_connection()

    def confirmed(self, token: str) -> None:
        """The broker has a publication safe."""
        self._act_on(self._ledger.confirm(token, time.monotonic()))

    def nacked(self, token: str) -> None:
        """The broker refuses a publication."""
        for event in self._ledger.refuse_publication(token):
            self._metrics.nacked(event.package)
            self._broker_refused.setdefault(event.package.routing_key, {})[event.owner] = event
            self._any_broker_refused.set()

    def returned(self, token: str, exchange: str, routing_key: str) -> None:
        """No queue takes a publication."""
        self._act_on(self._ledger.return_publication(token), token)

    def replied(self, correlation_id: str, reply: Reply) -> None:
        """A worker has replied."""
        self._act_on(self._ledger.reply(correlation_id, reply, time.monotonic()), correlation_id)

    def _act_on(self, events: Iterable[PackageEvent], correlation_id: str = "") -> None:
        for event in events:
            package = event.package
            match event:
                case Published():
                    self._metrics.confirmed(package)
                case Confirmed(confirm_s=confirm_s):
                    self._metrics.confirm_took(package, confirm_s)
                    continue  # calls count a package once, when it is published
                case Acked(ack_s=ack_s):
                    self._metrics.acked(package, ack_s)
                case Refused(nack=nack):
                    self._metrics.refused(package)
                    logger.warning(
                        "a worker refused a package of %s: %s: %s",
                        package.routing_key,
                        nack.error,
                        nack.message,
                        extra={
                            "action": "package.refuse",
                            "error": nack.error,
                            "reason": nack.message,
                            **_log_fields(package, correlation_id),
                        },
                    )
                case Returned():
                    self._metrics.returned(package)
                    logger.error(
                        "the broker has no queue for exchange %s and routing key %s",
                        package.exchange.value,
                        package.routing_key,
                        extra={"action": "broker.route", **_log_fields(package, correlation_id)},
                    )
            event.owner.handle(event)

    async def _explain_broker_refusals(self) -> None:
        while True:
            await self._any_broker_refused.wait()
            self._any_broker_refused.clear()
            for queue in list(self._broker_refused):
                queue_is_full = await self._queue_lengths.is_full(queue)
                for event in self._broker_refused.pop(queue).values():
                    event.owner.handle(BrokerRefused(event.owner, event.package, queue_is_full))

    def _note_connection(self) -> None:
        if self.connected is not self._was_connected:
            self._was_connected = self.connected
            self._on_change()

    def _publish_waiting(self) -> None:
        if self._next_slice is None:
            self._publish_slice()

    def _publish_slice(self) -> None:
        self._next_slice = None
        for _ in range(_SLICE_COUNT):
            if not self._publisher.ready or self._replies.queue is None:
                return
            publication = self._ledger.next_publication(time.monotonic())
            if publication is None:
                return
            package = publication.package
            self._metrics.published(package, again=publication.is_republication)
            self._queue_lengths.note_published(package)
            self._publisher.publish(
                Message(
                    token=publication.correlation_id,
                    exchange=package.exchange.value,
                    routing_key=package.routing_key,
                    body=package.body,
                    content_type=CONTENT_TYPE,
                    reply_to=self._replies.queue,
                    headers=_HEADERS,
                )
            )
        # After an outage hundreds of thousands may wait: heartbeats and health get their turn between slices.
        self._next_slice = asyncio.get_running_loop().call_soon(self._publish_slice)


def _log_fields(package: Package, correlation_id: str) -> dict[str, str]:
    exchange, routing_key = package.exchange.value, package.routing_key
    return {"exchange": exchange, "routing_key": routing_key, "correlation_id": correlation_id}
