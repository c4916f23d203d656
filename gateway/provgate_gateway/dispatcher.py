"""Gets packages to the workers and their replies back to the calls.

State and its owner: the ledger holds every package that is not acked; this file holds which of them wait to be
published. A package waits until there are both a publisher that the broker does not block and a reply queue. What a
lost connection makes uncertain waits again: with the publisher, all that is not confirmed; with the reply queue, all
that is not acked, since replies may have been lost with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from types import MappingProxyType
from typing import Final

from provgate_broker.publisher import Message, Publisher
from provgate_broker.reply_consumer import ReplyConsumer
from provgate_broker.session import AmqpParameters
from provgate_broker.wire import CONTENT_TYPE, NACK_HEADER, Reply
from provgate_gateway.ledger import Ledger, OpenPackage, PackageOwner
from provgate_gateway.splitting import Package

logger = logging.getLogger(__name__)

_HEADERS: Final = MappingProxyType({NACK_HEADER: True})


class Dispatcher:
    """The gateway's one publisher and one reply consumer, for all calls. Belongs to one event loop.

    Args:
        parameters: where the broker is.
        name: what the broker shows for the two connections.
        sum_replies: as for `Ledger`.
        on_change: called when the broker becomes reachable or stops being so.
    """

    def __init__(
        self,
        parameters: AmqpParameters,
        name: str,
        *,
        sum_replies: bool = False,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._ledger = Ledger(sum_replies=sum_replies)
        # In the order in which they are to be published.
        self._waiting: dict[OpenPackage, None] = {}
        self._publisher = Publisher(parameters, f"{name} publisher", self)
        self._replies = ReplyConsumer(parameters, f"{name} replies", self)
        self._on_change = on_change

    @property
    def connected(self) -> bool:
        """Whether packages can reach the broker and replies come back."""
        return self._publisher.connected and self._replies.queue is not None

    @property
    def blocked(self) -> bool:
        """Whether the broker holds publishes back."""
        return self._publisher.blocked

    async def run(self) -> None:
        """Keeps the connections until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._publisher.run())
            group.create_task(self._replies.run())

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
        self._on_change()
        self._publish_waiting()

    def publisher_blocked(self) -> None:
        """The broker holds publishes back."""
        logger.warning("the broker blocks publishers")
        self._on_change()

    def publisher_lost(self) -> None:
        """What is not confirmed may not have reached the broker."""
        self._wait(self._ledger.unconfirmed())
        self._on_change()

    def reply_queue_ready(self) -> None:
        """Replies can come."""
        self._on_change()
        self._publish_waiting()

    def reply_queue_lost(self) -> None:
        """Replies on their way are lost."""
        self._wait(self._ledger.unacked())
        self._on_change()

    def confirmed(self, token: str) -> None:
        """A publication is safe in the broker."""
        self._ledger.confirm(token)

    def nacked(self, token: str) -> None:
        """A queue is full."""
        opened = self._ledger.find(token)
        if opened is not None:
            opened.owner.overflowed()

    def returned(self, token: str, exchange: str, routing_key: str) -> None:
        """A queue is missing."""
        opened = self._ledger.take_returned(token)
        if opened is not None:
            logger.error("the broker has no queue for exchange %s and routing key %s", exchange, routing_key)
            opened.owner.returned(opened.package)

    def replied(self, correlation_id: str, reply: Reply) -> None:
        """A worker has replied."""
        opened = self._ledger.find(correlation_id)
        self._ledger.reply(correlation_id, reply)
        if opened is not None and opened not in self._ledger:
            self._waiting.pop(opened, None)

    def _wait(self, packages: Iterable[OpenPackage]) -> None:
        self._waiting.update(dict.fromkeys(packages))

    def _publish_waiting(self) -> None:
        while self._waiting and self._publisher.ready and self._replies.queue is not None:
            opened = next(iter(self._waiting))
            del self._waiting[opened]
            self._publisher.publish(self._message(opened, self._replies.queue))

    def _message(self, opened: OpenPackage, reply_queue: str) -> Message:
        package = opened.package
        return Message(
            token=self._ledger.publication(opened),
            exchange=package.exchange.value,
            routing_key=package.routing_key,
            body=package.body,
            content_type=CONTENT_TYPE,
            reply_to=reply_queue,
            headers=_HEADERS,
        )
