"""Consuming the work queues."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, Protocol

from pika.channel import Channel
from pika.spec import Basic, BasicProperties

from provgate_broker.amqp.connection import AmqpChannel, AmqpParameters, AmqpSession
from provgate_broker.amqp.link import AmqpLink
from provgate_broker.consume.delivery import Delivery, delivery_of
from provgate_broker.errors import ConnectionLostError
from provgate_runtime.outage import Outage

logger = logging.getLogger(__name__)


class Getter:
    """Takes messages one by one, over a channel of its own on somebody's session. Belongs to one event loop.

    What is taken is in hand until it is acked or requeued, or the session ends. One call at a time.

    Attributes:
        session: the session; None while there is none.
    """

    def __init__(self, session: AmqpSession | None = None) -> None:
        self.session = session
        self._amqp_channel: AmqpChannel | None = None
        self._tell_empty: Callable[[], None] = lambda: None

    async def message_count(self, queue: str) -> int:
        """Returns how many messages wait in a queue.

        Raises:
            ConnectionLostError: there is no connection or no such queue.
        """
        amqp_channel = await self._channel()
        declared = await amqp_channel.call(
            lambda callback: amqp_channel.raw.queue_declare(queue, passive=True, callback=callback)
        )
        count: int = declared.method.message_count
        return count

    async def get(self, queue: str) -> Delivery | None:
        """Returns the next message of a queue; None where none waits.

        Raises:
            ConnectionLostError: there is no connection or no such queue.
        """
        amqp_channel = await self._channel()
        taken: tuple[Any, ...] = await amqp_channel.call(
            lambda answer: self._start_get(amqp_channel.raw, queue, answer)
        )
        return delivery_of(queue, amqp_channel, *taken) if taken else None

    def _start_get(self, raw: Channel, queue: str, answer: Callable[[tuple[Any, ...]], None]) -> None:
        self._tell_empty = lambda: answer(())
        raw.basic_get(queue, lambda _channel, method, properties, body: answer((method, properties, body)))

    async def _channel(self) -> AmqpChannel:
        if self.session is None:
            raise ConnectionLostError("there is no connection")
        # A channel of an earlier session is lost with it.
        if self._amqp_channel is None or self._amqp_channel.lost.done():
            self._amqp_channel = await self.session.open_channel()
            # pika tells the callback of basic_get nothing of an empty queue.
            self._amqp_channel.raw.add_callback(lambda _: self._tell_empty(), [Basic.GetEmpty], one_shot=False)
        return self._amqp_channel


# How long a queue that cannot be consumed is left alone.
_RETRY_MIN_S: Final = 2.0
_RETRY_MAX_S: Final = 5.0


class WorkConsumerListener(Protocol):
    """What a work consumer tells. All calls come from its event loop."""

    def registered(self, queue: str) -> None:
        """The broker knows of this consumer of a queue."""

    def delivered(self, delivery: Delivery) -> None:
        """A package is in hand until it is acked or requeued, or `taken_back` says that it is not."""

    def suspended(self, queue: str) -> None:
        """The consumer of a queue is cancelled as asked for: no more is delivered. What is in hand stays there."""

    def taken_back(self, queue: str) -> None:
        """The broker has taken back every package of a queue that was in hand: it delivers them again, to whomever."""


class WorkConsumer:
    """Consumes queues over a connection of its own. Belongs to one event loop.

    Each queue has a channel of its own on that connection. To close it gives all packages of that queue back and
    disturbs no other queue, and a broker that refuses a consumer closes only that channel. What is asked for with
    `register`, `suspend` and `release` holds over lost connections.

    Args:
        parameters: where the broker is.
        name: what the broker shows for the connection.
        listener: is told what happens.
        delays_s: the queues, none of which is consumed before it is registered, each with how long it is left to
            others when a connection is new.
        prefetch_count: how many packages of each queue may be in hand.
    """

    def __init__(
        self,
        parameters: AmqpParameters,
        name: str,
        listener: WorkConsumerListener,
        delays_s: Mapping[str, float],
        *,
        prefetch_count: int,
    ) -> None:
        self._link = AmqpLink(parameters, name, self._serve)
        self._listener = listener
        self._prefetch_count = prefetch_count
        self._subscriptions = {queue: _Subscription(queue, delay_s) for queue, delay_s in delays_s.items()}
        self.getter = Getter()

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self.getter.session is not None

    async def run(self) -> None:
        """Keeps connection and consumers until it is cancelled. Everything in hand goes back to the broker then."""
        await self._link.run()

    def register(self, queue: str) -> None:
        """Has a queue consumed from now on."""
        self._subscriptions[queue].want(_Wanted.DELIVERIES)

    def suspend(self, queue: str) -> None:
        """Cancels the consumer of a queue; the packages in hand stay there."""
        self._subscriptions[queue].want(_Wanted.CHANNEL)

    def release(self, queue: str) -> None:
        """Cancels the consumer of a queue and gives the packages in hand back."""
        self._subscriptions[queue].want(_Wanted.NOTHING)

    async def _serve(self, session: AmqpSession) -> None:
        self.getter.session = session
        lost: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for subscription in self._subscriptions.values():
                    group.create_task(self._keep(session, subscription))
                group.create_task(session.wait_lost())
        except* ConnectionLostError as errors:
            lost = errors.exceptions[0]
        finally:
            self.getter.session = None
        if lost is not None:
            raise lost

    async def _keep(self, session: AmqpSession, subscription: _Subscription) -> None:
        await asyncio.sleep(subscription.delay_s)
        while True:
            await subscription.wanted_more_than(_Wanted.NOTHING)
            try:
                await self._hold_channel(session, subscription)
            except ConnectionLostError as error:
                if not session.is_open:
                    raise
                queue = subscription.queue
                subscription.outage.failed(f"queue {queue} cannot be consumed", error, queue=queue)
                await asyncio.sleep(random.uniform(_RETRY_MIN_S, _RETRY_MAX_S))

    async def _hold_channel(self, session: AmqpSession, subscription: _Subscription) -> None:
        amqp_channel = await session.open_channel()
        # The broker cancels a consumer whose queue is deleted: the channel is given up then, and a new one tried.
        amqp_channel.raw.add_on_cancel_callback(lambda _: amqp_channel.raw.close())
        amqp_channel.lost.add_done_callback(lambda _: subscription.changed.set())
        try:
            # Not global: quorum queues refuse a limit for a whole channel.
            await amqp_channel.call(
                lambda callback: amqp_channel.raw.basic_qos(prefetch_count=self._prefetch_count, callback=callback)
            )
            await self._follow_wishes(amqp_channel, subscription)
            await amqp_channel.close()
        finally:
            self._listener.taken_back(subscription.queue)

    async def _follow_wishes(self, amqp_channel: AmqpChannel, subscription: _Subscription) -> None:
        consumer_tag: str | None = None
        while subscription.wanted is not _Wanted.NOTHING:
            if amqp_channel.lost.done():
                raise amqp_channel.lost.result()
            if subscription.wanted is _Wanted.DELIVERIES and consumer_tag is None:
                consumer_tag = await self._consume(amqp_channel, subscription.queue)
                queue = subscription.queue
                subscription.outage.ended(f"queue {queue} is consumed again", queue=queue)
                self._listener.registered(subscription.queue)
            elif subscription.wanted is _Wanted.CHANNEL and consumer_tag is not None:
                await _cancel(amqp_channel, consumer_tag)
                consumer_tag = None
                self._listener.suspended(subscription.queue)
            else:
                await subscription.change()

    async def _consume(self, amqp_channel: AmqpChannel, queue: str) -> str:
        def on_message(_channel: Channel, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
            self._listener.delivered(delivery_of(queue, amqp_channel, method, properties, body))

        answer = await amqp_channel.call(
            lambda callback: amqp_channel.raw.basic_consume(queue, on_message, callback=callback)
        )
        consumer_tag: str = answer.method.consumer_tag
        return consumer_tag


class _Wanted(Enum):
    NOTHING = 0
    CHANNEL = 1
    DELIVERIES = 2


class _Subscription:
    """What is wanted of a queue."""

    def __init__(self, queue: str, delay_s: float) -> None:
        self.queue = queue
        self.delay_s = delay_s
        self.wanted = _Wanted.NOTHING
        self.changed = asyncio.Event()
        self.outage = Outage(logger, action="broker.consume")

    def want(self, wanted: _Wanted) -> None:
        self.wanted = wanted
        self.changed.set()

    async def change(self) -> None:
        self.changed.clear()
        await self.changed.wait()

    async def wanted_more_than(self, wanted: _Wanted) -> None:
        while self.wanted is wanted:
            await self.change()


async def _cancel(amqp_channel: AmqpChannel, consumer_tag: str) -> None:
    await amqp_channel.call(lambda callback: amqp_channel.raw.basic_cancel(consumer_tag, callback))
