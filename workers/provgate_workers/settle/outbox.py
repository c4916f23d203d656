"""Publishes replies and copies of packages on a connection of its own, until the broker has confirmed them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter

from provgate_broker.amqp.connection import AmqpParameters
from provgate_broker.publish.publisher import Message, Publisher
from provgate_runtime.outage import Outage

logger = logging.getLogger(__name__)

# The most replies that are kept while the broker blocks publishes; about half a kilobyte each.
KEPT_REPLIES_MAX_COUNT: Final = 50_000

_REFUSED_RETRY_S: Final = 5.0

# How many messages are published before the event loop gets to do something else.
_FLUSH_COUNT: Final = 500


@dataclass(frozen=True, slots=True)
class MessageSafe:
    """The broker has a message; or it is a reply that is kept because publishes are blocked, or given up."""

    token: str


@dataclass(eq=False, slots=True)
class _Sending:
    """A message that is not confirmed.

    Attributes:
        message: the message.
        expendable: whether it is a reply, which may be lost where a copy may not.
        reported: whether `MessageSafe` was emitted.
        published: whether it was published on this connection.
        returned: whether the broker returned it, as no queue takes it.
        retry: when it is published again after it was refused.
    """

    message: Message
    expendable: bool
    reported: bool = False
    published: bool = False
    returned: bool = False
    retry: asyncio.TimerHandle | None = None

    def mark_unpublished(self) -> None:
        self.published = self.returned = False
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None


class Outbox:
    """Publishes messages and reports when they are safe. Belongs to one event loop.

    A broker that blocks publishers stops reading their connection, delivery acks included. Deliveries therefore come
    over another connection: their acks end the alarm. While publishes are blocked, replies count as safe and are kept,
    up to a bound; the oldest beyond it are lost. While there is no connection, replies wait like copies. The packages
    in hand, whose delivery acks wait for them, bound their number.

    Args:
        parameters: where the broker is.
        name: the connection's name, which the broker shows.
        dropped_replies: counts the replies that are lost.
        emit: called with `MessageSafe` once for each message, on the event loop.
    """

    def __init__(
        self, parameters: AmqpParameters, name: str, dropped_replies: Counter, emit: Callable[[MessageSafe], None]
    ) -> None:
        self._publisher = Publisher(parameters, name, self)
        self._dropped_replies = dropped_replies
        self._emit = emit
        self._sending: dict[str, _Sending] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        # A copy that one queue refuses is tried again while copies to other queues go out.
        self._outage = Outage(logger, action="outbox.copy", level=logging.ERROR, calm_s=2 * _REFUSED_RETRY_S)
        self._dropped_count = 0

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._publisher.connected

    async def run(self) -> None:
        """Keeps the connection until it is cancelled."""
        await self._publisher.run()

    async def drained(self) -> None:
        """Waits until every message is confirmed."""
        # One may be sent between the last confirm and the end of the wait.
        while self._sending:
            await self._empty.wait()

    def send(self, message: Message, *, expendable: bool) -> None:
        """Publishes a message now or when there is a connection.

        Args:
            message: the message, with a token of its own.
            expendable: whether it is a reply: safe also if it is kept because publishes are blocked, and given up if
                its queue refuses it. Anything else is safe only in a queue.
        """
        sending = _Sending(message, expendable)
        self._sending[message.token] = sending
        self._empty.clear()
        if self._publisher.ready:
            self._publish(sending)
        elif self._publisher.blocked:
            self._keep(sending)

    def publisher_ready(self) -> None:
        """Publishes what waits, a part at a time."""
        if not self._publisher.ready:
            return
        waiting = [sending for sending in self._sending.values() if not sending.published]
        for sending in waiting[:_FLUSH_COUNT]:
            self._publish(sending)
        if len(waiting) > _FLUSH_COUNT:
            asyncio.get_running_loop().call_soon(self.publisher_ready)

    def publisher_blocked(self) -> None:
        """Keeps the replies, so that their deliveries are acked."""
        for sending in list(self._sending.values()):
            self._keep(sending)

    def publisher_lost(self) -> None:
        """Publishes everything again on the next connection."""
        for sending in self._sending.values():
            # Its retry is cancelled too: the next connection publishes it first, and must not publish it twice.
            sending.mark_unpublished()

    def confirmed(self, token: str) -> None:
        """Reports a message as safe, unless the broker returned it."""
        sending = self._sending.get(token)
        if sending is None:
            return
        if sending.returned:
            self._retry_later(sending)
            return
        if not sending.expendable:
            self._outage.ended("copies of packages go out again")
        self._finish(sending)

    def nacked(self, token: str) -> None:
        """Gives a reply up: its queue refuses it. Publishes any other message again, later."""
        sending = self._sending.get(token)
        if sending is None:
            return
        if sending.expendable:
            self._finish(sending)
            return
        queue = sending.message.routing_key
        self._outage.failed("a copy of a package waits", f"queue {queue} refuses it: is it full?", queue=queue)
        self._retry_later(sending)

    def returned(self, token: str, exchange: str, routing_key: str) -> None:
        """Notes that no queue takes a message; the broker confirms it all the same."""
        sending = self._sending.get(token)
        if sending is not None:
            reason = f"exchange {exchange!r} has no queue for routing key {routing_key!r}: run `provgate-workers setup`"
            self._outage.failed("a message waits", reason, exchange=exchange, routing_key=routing_key)
            sending.returned = True

    def _publish(self, sending: _Sending) -> None:
        sending.published = True
        self._publisher.publish(sending.message)

    def _keep(self, sending: _Sending) -> None:
        """Counts a reply as safe while publishes are blocked. Drops the oldest reply if too many are kept."""
        if not sending.expendable:
            return
        self._report(sending)
        if len(self._sending) <= KEPT_REPLIES_MAX_COUNT:
            return
        oldest = next(kept for kept in self._sending.values() if kept.expendable)
        if self._dropped_count % KEPT_REPLIES_MAX_COUNT == 0:
            logger.warning(
                "the broker blocks publishes, and more replies wait than are kept: the oldest are dropped",
                extra={"action": "outbox.drop", "count": self._dropped_count},
            )
        self._dropped_count += 1
        self._dropped_replies.inc()
        self._finish(oldest)

    def _retry_later(self, sending: _Sending) -> None:
        def retry() -> None:
            sending.mark_unpublished()
            self.publisher_ready()

        sending.retry = asyncio.get_running_loop().call_later(_REFUSED_RETRY_S, retry)

    def _finish(self, sending: _Sending) -> None:
        self._sending.pop(sending.message.token, None)
        self._report(sending)
        if not self._sending:
            self._empty.set()

    def _report(self, sending: _Sending) -> None:
        if not sending.reported:
            sending.reported = True
            self._emit(MessageSafe(sending.message.token))
