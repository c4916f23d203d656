"""Replies and copies of packages on their way out, until the broker has confirmed them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from provgate_broker.amqp.connection import AmqpParameters
from provgate_broker.publish.publisher import Message, Publisher
from provgate_runtime.outage import Outage

logger = logging.getLogger(__name__)

# Replies that are kept while the broker holds publishes back; about half a kilobyte each.
KEPT_REPLIES_MAX_COUNT: Final = 50_000

_REFUSED_RETRY_S: Final = 5.0

# How many messages are published before the loop gets to do something else.
_FLUSH_COUNT: Final = 500


@dataclass(slots=True)
class _Sending:
    message: Message
    done: Callable[[], None] | None
    expendable: bool
    published: bool = False
    returned: bool = False
    retry: asyncio.TimerHandle | None = None

    def note_unpublished(self) -> None:
        self.published = self.returned = False
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None


class Outbox:
    """Sends messages over a connection of its own and tells when they are safe. Belongs to one event loop.

    The connection is apart from that of the deliveries because a broker that blocks publishers stops reading the
    connection that they publish on, and with it the delivery acks that would end the alarm. While it is blocked,
    replies count as sent: those whose turn does not come in time are lost. While there is no connection, replies wait
    like everything else; what waits then is bounded by the packages in hand, whose delivery acks wait for it.

    Args:
        parameters: where the broker is.
        name: what the broker shows for the connection.
        on_reply_dropped: is called for each reply that is lost.

    Attributes:
        dropped_reply_count: the replies that were lost because too many were kept.
    """

    def __init__(
        self, parameters: AmqpParameters, name: str, on_reply_dropped: Callable[[], None] = lambda: None
    ) -> None:
        self._publisher = Publisher(parameters, name, self)
        self._sending: dict[str, _Sending] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        # A copy that one queue refuses is tried again while those to other queues go out.
        self._outage = Outage(logger, action="outbox.copy", level=logging.ERROR, calm_s=2 * _REFUSED_RETRY_S)
        self._on_reply_dropped = on_reply_dropped
        self.dropped_reply_count = 0

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._publisher.connected

    async def run(self) -> None:
        """Keeps the connection until it is cancelled."""
        await self._publisher.run()

    async def drained(self) -> None:
        """Waits until nothing is on its way."""
        await self._empty.wait()

    def send_reply(self, message: Message, done: Callable[[], None]) -> None:
        """Sends a reply. `done` is called when the broker has it, or when it is kept because publishes are blocked."""
        self._send(_Sending(message, done, expendable=True))

    def send_copy(self, message: Message, done: Callable[[], None]) -> None:
        """Sends what must not be lost. `done` is called when the broker has it safe in a queue, and not before."""
        self._send(_Sending(message, done, expendable=False))

    def publisher_ready(self) -> None:
        """Publishes what waits."""
        self._flush()

    def publisher_blocked(self) -> None:
        """Lets the deliveries go that wait for replies."""
        for sending in list(self._sending.values()):
            self._keep(sending)

    def publisher_lost(self) -> None:
        """Has everything published again on the next connection."""
        for sending in self._sending.values():
            # One that waits for its next try too: the next connection has it published before, and must not twice.
            sending.note_unpublished()

    def confirmed(self, token: str) -> None:
        """Tells that a message is safe, unless it is one that the broker returned."""
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
        """Gives a reply up, since its reply queue refuses it. Sends anything else again, later."""
        sending = self._sending.get(token)
        if sending is None:
            return
        if sending.expendable:
            self._finish(sending)
        else:
            queue = sending.message.routing_key
            self._outage.failed("a copy of a package waits", f"queue {queue} refuses it: is it full?", queue=queue)
            self._retry_later(sending)

    def returned(self, token: str, exchange: str, routing_key: str) -> None:
        """Notes that there is no queue for a message; the broker confirms it all the same."""
        sending = self._sending.get(token)
        if sending is not None:
            reason = f"exchange {exchange!r} has no queue for routing key {routing_key!r}: run `provgate-workers setup`"
            self._outage.failed("a message waits", reason, exchange=exchange, routing_key=routing_key)
            sending.returned = True

    def _send(self, sending: _Sending) -> None:
        self._sending[sending.message.token] = sending
        self._empty.clear()
        if self._publisher.ready:
            self._publish(sending)
        elif self._publisher.blocked:
            self._keep(sending)

    def _publish(self, sending: _Sending) -> None:
        sending.published = True
        self._publisher.publish(sending.message)

    def _flush(self) -> None:
        if not self._publisher.ready:
            return
        waiting = [sending for sending in self._sending.values() if not sending.published]
        for sending in waiting[:_FLUSH_COUNT]:
            self._publish(sending)
        if len(waiting) > _FLUSH_COUNT:
            asyncio.get_running_loop().call_soon(self._flush)

    def _keep(self, sending: _Sending) -> None:
        if not sending.expendable:
            return
        self._tell_done(sending)
        if len(self._sending) > KEPT_REPLIES_MAX_COUNT:
            self._drop_oldest_reply()

    def _drop_oldest_reply(self) -> None:
        oldest = next((sending for sending in self._sending.values() if sending.expendable), None)
        if oldest is None:
            return
        if self.dropped_reply_count % KEPT_REPLIES_MAX_COUNT == 0:
            logger.warning(
                "the broker blocks publishes, and more replies wait than are kept: the oldest are dropped",
                extra={"action": "outbox.drop", "count": self.dropped_reply_count},
            )
        self.dropped_reply_count += 1
        self._on_reply_dropped()
        self._finish(oldest)

    def _retry_later(self, sending: _Sending) -> None:
        sending.retry = asyncio.get_running_loop().call_later(_REFUSED_RETRY_S, self._retry, sending)

    def _retry(self, sending: _Sending) -> None:
        sending.note_unpublished()
        self._flush()

    def _finish(self, sending: _Sending) -> None:
        self._sending.pop(sending.message.token, None)
        self._tell_done(sending)
        if not self._sending:
            self._empty.set()

    def _tell_done(self, sending: _Sending) -> None:
        done, sending.done = sending.done, None
        if done is not None:
            done()
