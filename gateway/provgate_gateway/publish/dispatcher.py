"""Gets packages to the workers and their replies back to the calls.

State and its owner: the ledger holds every package that is not acked; this file holds which of them wait to be
published. A package waits until there are both a publisher that the broker does not block and a reply queue. What a
lost connection makes uncertain waits again: with the publisher, all that is not confirmed; with the reply queue, all
that is not acked, since replies may have been lost with it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from types import MappingProxyType
from typing import Final

from provgate_broker.amqp.connection import NOT_FOUND, AmqpParameters
from provgate_broker.consume.reply_consumer import ReplyConsumer
from provgate_broker.publish.publisher import Message, Publisher
from provgate_broker.wire.package import CONTENT_TYPE, NACK_HEADER, Nack, Reply
from provgate_gateway.metrics import GatewayMetrics
from provgate_gateway.publish.ledger import Ledger, OpenPackage, PackageOwner
from provgate_gateway.publish.nacks import Nacks
from provgate_gateway.write.splitting import Package
from provgate_runtime.watch.conditions import Condition

logger = logging.getLogger(__name__)

_PUBLISH_AT_ONCE_COUNT: Final = 500
_HEADERS: Final = MappingProxyType({NACK_HEADER: True})


class Dispatcher:
    """The gateway's one publisher and one reply consumer, for all calls. Belongs to one event loop.

    Args:
        parameters: where the broker is.
        name: what the broker shows for the two connections.
        metrics: counts what becomes of packages.
        sum_replies: as for `Ledger`.
        queue_max_bytes: as for `Nacks`.
        on_change: called when the broker becomes reachable or stops being so.
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
    ) -> None:
        self._ledger = Ledger(sum_replies=sum_replies)
        # In the order in which they are to be published. The first of a plain dict is found by a walk over all those
        # that were taken from it before.
        self._waiting: OrderedDict[OpenPackage, None] = OrderedDict()
        self._next_slice: asyncio.Handle | None = None
        self._publisher = Publisher(parameters, f"{name} publisher", self)
        self._replies = ReplyConsumer(parameters, f"{name} replies", self)
        self._nacks = Nacks(self._replies.queue_state, queue_max_bytes)
        self._on_change = on_change
        self._metrics = metrics
        metrics.show_broker(
            lambda: self._publisher.connected, lambda: self._replies.queue is not None, lambda: self._publisher.blocked
        )
        self._told_blocked = False
        self._told_connected = False

    @property
    def connected(self) -> bool:
        """Whether packages can reach the broker and replies come back."""
        return self._publisher.connected and self._replies.queue is not None

    @property
    def blocked(self) -> bool:
        """Whether the broker holds publishes back."""
        return self._publisher.blocked

    def conditions(self) -> list[Condition]:
        """Returns whether the broker can be reached; on any thread."""
        return [Condition("broker", self._disconnection())]

    async def run(self) -> None:
        """Keeps the connections until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._publisher.run())
            group.create_task(self._replies.run())
            group.create_task(self._nacks.run())

    def submit(self, packages: Iterable[Package], owner: PackageOwner) -> None:
        """Takes packages of a call, and publishes them now or as soon as may be."""
        self._wait(self._ledger.add(package, owner) for package in packages)
        self._publish_waiting()

    def drop(self, owner: PackageOwner) -> None:
        """Forgets the packages of a call: those that wait are never published, no reply to the others counts."""
        for opened in self._ledger.drop(owner):
            self._waiting.pop(opened, None)

    def publisher_ready(self) -> None:
        """The publisher takes messages."""
        if self._told_blocked:
            self._told_blocked = False
            logger.info("the broker takes publishes again", extra={"action": "broker.block", "state": "working"})
        self._note_change()
        self._publish_waiting()

    def publisher_blocked(self) -> None:
        """The broker holds publishes back."""
        self._told_blocked = True
        logger.warning("the broker blocks publishers", extra={"action": "broker.block", "state": "failing"})

    def publisher_lost(self) -> None:
        """What is not confirmed may not have reached the broker, or has no exchange to go to."""
        for opened in list(self._ledger.unconfirmed()):
            if self._has_no_exchange(opened.package):
                opened.owner.returned(opened.package)
            else:
                self._wait([opened])
        self._note_change()

    def reply_queue_ready(self) -> None:
        """Replies can come."""
        self._note_change()
        self._publish_waiting()

    def reply_queue_lost(self) -> None:
        """Replies on their way are lost."""
        self._wait(self._ledger.unacked())
        self._note_change()

    def confirmed(self, token: str) -> None:
        """A publication is safe in the broker."""
        opened = self._ledger.find(token)
        if opened is None:
            return
        was_published, was_confirmed = opened.published, opened.confirmed
        self._ledger.confirm(token)
        if not was_published:
            self._metrics.confirmed(opened.package)
        if opened.confirmed and not was_confirmed:
            self._metrics.confirm_took(opened.package, time.monotonic() - opened.published_at)

    def nacked(self, token: str) -> None:
        """The broker refuses a publication."""
        opened = self._ledger.find(token)
        if opened is not None:
            self._metrics.nacked(opened.package)
            self._nacks.add(opened.package, opened.owner)

    def returned(self, token: str, exchange: str, routing_key: str) -> None:
        """A queue is missing."""
        opened = self._ledger.take_returned(token)
        if opened is not None:
            fields = {"exchange": exchange, "routing_key": routing_key, "correlation_id": token}
            logger.error(
                "the broker has no queue for exchange %s and routing key %s",
                exchange,
                routing_key,
                extra={"action": "broker.route", **fields},
            )
            self._metrics.returned(opened.package)
            opened.owner.returned(opened.package)

    def replied(self, correlation_id: str, reply: Reply) -> None:
        """A worker has replied."""
        opened = self._ledger.find(correlation_id)
        if opened is None:
            return
        was_published = opened.published
        self._ledger.reply(correlation_id, reply)
        if isinstance(reply, Nack):
            _tell_refused(opened.package, correlation_id, reply)
            self._metrics.refused(opened.package)
        elif opened not in self._ledger:
            self._waiting.pop(opened, None)
            self._note_acked(opened, was_published=was_published)

    def _note_change(self) -> None:
        connected = self.connected
        if connected is not self._told_connected:
            self._told_connected = connected
            self._on_change()

    def _note_acked(self, opened: OpenPackage, *, was_published: bool) -> None:
        if not was_published:
            # Its reply has overtaken its confirm.
            self._metrics.confirmed(opened.package)
        self._metrics.acked(opened.package, time.monotonic() - opened.first_published_at)

    def _disconnection(self) -> str | None:
        if not self._publisher.connected:
            loss = self._publisher.last_loss
            return "no connection to publish on" + (f", the last one was lost: {loss}" if loss else "")
        return "no reply queue" if self._replies.queue is None else None

    def _has_no_exchange(self, package: Package) -> bool:
        # The broker closes the channel over a missing exchange: published again, the package would close the next one
        # too. RabbitMQ says "NOT_FOUND - no exchange 'content' in vhost '/'".
        loss = self._publisher.last_loss
        return loss is not None and loss.reply_code == NOT_FOUND and f"no exchange '{package.exchange}'" in str(loss)

    def _wait(self, packages: Iterable[OpenPackage]) -> None:
        self._waiting.update(dict.fromkeys(packages))

    def _publish_waiting(self) -> None:
        if self._next_slice is None:
            self._publish_slice()

    def _publish_slice(self) -> None:
        self._next_slice = None
        for _ in range(_PUBLISH_AT_ONCE_COUNT):
            if not self._waiting or not self._publisher.ready or self._replies.queue is None:
                return
            opened, _ = self._waiting.popitem(last=False)
            self._publisher.publish(self._message(opened, self._replies.queue))
        # After an outage hundreds of thousands may wait: heartbeats and health go on between the slices.
        self._next_slice = asyncio.get_running_loop().call_soon(self._publish_slice)

    def _message(self, opened: OpenPackage, reply_queue: str) -> Message:
        package = opened.package
        self._metrics.published(package, again=bool(opened.correlation_ids))
        self._nacks.note_published(package)
        return Message(
            token=self._ledger.publication(opened, time.monotonic()),
            exchange=package.exchange.value,
            routing_key=package.routing_key,
            body=package.body,
            content_type=CONTENT_TYPE,
            reply_to=reply_queue,
            headers=_HEADERS,
        )


def _tell_refused(package: Package, correlation_id: str, nack: Nack) -> None:
    fields = {
        "exchange": package.exchange.value,
        "routing_key": package.routing_key,
        "correlation_id": correlation_id,
        "error": nack.error,
        "reason": nack.message,
    }
    logger.warning(
        "a worker refused a package of %s: %s: %s",
        package.routing_key,
        nack.error,
        nack.message,
        extra={"action": "package.refuse", **fields},
    )
