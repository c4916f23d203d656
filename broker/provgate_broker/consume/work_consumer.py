"""Consumes the work queues, each on a channel of its own, and reports what happens as events."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from pika.channel import Channel
from pika.frame import Method
from pika.spec import Basic, BasicProperties, Queue

from provgate_broker.amqp.connection import AmqpChannel, AmqpParameters, AmqpSession
from provgate_broker.amqp.link import AmqpLink
from provgate_broker.consume.delivery import Delivery, delivery_of
from provgate_broker.errors import ConnectionLostError
from provgate_runtime.outage import Outage

logger = logging.getLogger(__name__)

# How long a queue that cannot be consumed is left alone.
_RETRY_MIN_S: Final = 2.0
_RETRY_MAX_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Registered:
    """The broker has registered the consumer of a queue."""

    queue: str


@dataclass(frozen=True, slots=True)
class Suspended:
    """The consumer of a queue is cancelled, as `suspend` asked. No more is delivered; deliveries in hand stay."""

    queue: str


@dataclass(frozen=True, slots=True)
class TakenBack:
    """The channel of a queue is gone. The broker takes back every delivery in hand and delivers it again."""

    queue: str


ConsumerEvent: TypeAlias = Delivery | Registered | Suspended | TakenBack
"""What a consumer reports. A delivery is in hand until it is acked or requeued, or its queue is `TakenBack`."""


class _Wanted(Enum):
    NOTHING = 0
    CHANNEL = 1
    DELIVERIES = 2


class WorkConsumer:
    """Consumes queues over a connection of its own. Belongs to one event loop.

    Each queue has its own channel. Closing it gives back the packages of that queue alone, and a broker that refuses a
    consumer closes only that channel. `register`, `suspend` and `release` stay in force when a connection is lost.

    Args:
        parameters: where the broker is.
        name: the connection's name, which the broker shows.
        delays_s: the queues, with the time that each is left to others on every new connection.
        prefetch_count: the most packages of each queue that may be in hand.
        emit: called with each event, in order, on the event loop.

    Attributes:
        getter: takes messages of other queues over the same connection.
    """

    def __init__(
        self,
        parameters: AmqpParameters,
        name: str,
        delays_s: Mapping[str, float],
        prefetch_count: int,
        emit: Callable[[ConsumerEvent], None],
    ) -> None:
        self._link = AmqpLink(parameters, name, self._serve)
        self._delays_s = delays_s
        self._prefetch_count = prefetch_count
        self._emit = emit
        self._wanted = _Wanted.NOTHING
        # Set for each queue when the wish changes or its channel is lost.
        self._changed = {queue: asyncio.Event() for queue in delays_s}
        self._outages = {queue: Outage(logger, action="broker.consume") for queue in delays_s}
        self.getter = Getter()

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self.getter.session is not None

    async def run(self) -> None:
        """Keeps connection and consumers until it is cancelled. Then every delivery in hand goes back to the broker."""
        await self._link.run()

    def register(self) -> None:
        """Consumes the queues from now on."""
        self._want(_Wanted.DELIVERIES)

    def suspend(self) -> None:
        """Cancels the consumers. Deliveries in hand stay in hand."""
        self._want(_Wanted.CHANNEL)

    def release(self) -> None:
        """Cancels the consumers and gives the deliveries in hand back."""
        self._want(_Wanted.NOTHING)

    def _want(self, wanted: _Wanted) -> None:
        self._wanted = wanted
        for changed in self._changed.values():
            changed.set()

    async def _serve(self, session: AmqpSession) -> None:
        self.getter.session = session
        lost: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for queue in self._delays_s:
                    group.create_task(self._keep_consuming(session, queue))
                group.create_task(session.wait_lost())
        except* ConnectionLostError as errors:
            lost = errors.exceptions[0]
        finally:
            self.getter.session = None
        if lost is not None:
            raise lost

    async def _keep_consuming(self, session: AmqpSession, queue: str) -> None:
        await asyncio.sleep(self._delays_s[queue])
        while True:
            while self._wanted is _Wanted.NOTHING:
                await self._change(queue)
            try:
                await self._consume(session, queue)
            except ConnectionLostError as error:
                if not session.is_open:
                    raise
                self._outages[queue].failed(f"queue {queue} cannot be consumed", error, queue=queue)
                await asyncio.sleep(random.uniform(_RETRY_MIN_S, _RETRY_MAX_S))

    async def _consume(self, session: AmqpSession, queue: str) -> None:
        """Holds a channel, and a consumer on it, until they are not wanted. Raises `ConnectionLostError`."""
        amqp_channel = await session.open_channel()
        raw = amqp_channel.raw
        # The broker cancels a consumer whose queue is deleted. Then the channel is closed and a new one is tried.
        raw.add_on_cancel_callback(lambda _: raw.close())
        amqp_channel.lost.add_done_callback(lambda _: self._changed[queue].set())

        def on_message(_channel: Channel, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
            self._emit(delivery_of(queue, amqp_channel, method, properties, body))

        consumer_tag: str | None = None
        try:
            # Not global: quorum queues refuse a limit for a whole channel.
            await amqp_channel.call(
                lambda callback: raw.basic_qos(prefetch_count=self._prefetch_count, callback=callback)
            )
            while self._wanted is not _Wanted.NOTHING:
                if amqp_channel.lost.done():
                    raise amqp_channel.lost.result()
                if self._wanted is _Wanted.DELIVERIES and consumer_tag is None:
                    answer: Method[Basic.ConsumeOk] = await amqp_channel.call(
                        lambda callback: raw.basic_consume(queue, on_message, callback=callback)
                    )
                    consumer_tag = answer.method.consumer_tag
                    self._outages[queue].ended(f"queue {queue} is consumed again", queue=queue)
                    self._emit(Registered(queue))
                elif self._wanted is _Wanted.CHANNEL and consumer_tag is not None:
                    cancelled, consumer_tag = consumer_tag, None
                    await amqp_channel.call(lambda callback, tag=cancelled: raw.basic_cancel(tag, callback))  # type: ignore[misc]
                    self._emit(Suspended(queue))
                else:
                    await self._change(queue)
            await amqp_channel.close()
        finally:
            self._emit(TakenBack(queue))

    async def _change(self, queue: str) -> None:
        self._changed[queue].clear()
        await self._changed[queue].wait()


class Getter:
    """Takes messages one by one, over its own channel on an existing session. Belongs to one event loop.

    A message is in hand until it is acked or requeued, or the session ends. Make one call at a time.

    Attributes:
        session: the session; None while there is none.
    """

    def __init__(self, session: AmqpSession | None = None) -> None:
        self.session = session
        self._amqp_channel: AmqpChannel | None = None
        self._on_empty: Callable[[None], None] = lambda _: None

    async def message_count(self, queue: str) -> int:
        """Returns the number of messages that wait in a queue.

        Raises:
            ConnectionLostError: there is no connection or no such queue.
        """
        amqp_channel = await self._channel()
        declared: Method[Queue.DeclareOk] = await amqp_channel.call(
            lambda callback: amqp_channel.raw.queue_declare(queue, passive=True, callback=callback)
        )
        return declared.method.message_count or 0

    async def get(self, queue: str) -> Delivery | None:
        """Returns the next message of a queue; None if the queue is empty.

        Raises:
            ConnectionLostError: there is no connection or no such queue.
        """
        amqp_channel = await self._channel()

        def start(answer: Callable[[Delivery | None], None]) -> None:
            def on_message(_channel: Channel, method: Basic.GetOk, properties: BasicProperties, body: bytes) -> None:
                answer(delivery_of(queue, amqp_channel, method, properties, body))

            self._on_empty = answer
            amqp_channel.raw.basic_get(queue, on_message)

        delivery: Delivery | None = await amqp_channel.call(start)
        return delivery

    async def _channel(self) -> AmqpChannel:
        if self.session is None:
            raise ConnectionLostError("there is no connection")
        # A channel of an earlier session is lost with it.
        if self._amqp_channel is None or self._amqp_channel.lost.done():
            self._amqp_channel = await self.session.open_channel()
            # pika does not call the callback of basic_get when the queue is empty.
            self._amqp_channel.raw.add_callback(lambda _: self._on_empty(None), [Basic.GetEmpty], one_shot=False)
        return self._amqp_channel
