"""A broker in memory, with stand-ins for the consumer, the getter and the publisher of a worker process.

It is strict where a broker is: each delivery is acked or requeued once, over the channel that it came in. At every
delivery ack it asks whether anything would be lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

from pika.exceptions import ChannelWrongStateError

from provgate_broker.amqp.connection import AmqpChannel
from provgate_broker.consume.delivery import DELIVERY_COUNT_HEADER, Delivery
from provgate_broker.consume.work_consumer import ConsumerEvent, Registered, Suspended, TakenBack
from provgate_broker.errors import ConnectionLostError
from provgate_broker.publish.publisher import Message, PublisherListener
from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE, QUARANTINE_QUEUE

NUMBER_HEADER = "package"


@dataclass(eq=False)
class Held:
    """A message that the broker holds.

    Attributes:
        number: of the package that it is, or is a copy of.
        exchange, routing_key, body, reply_to, correlation_id, headers: as published.
        delivery_count: how often it was delivered before.
    """

    number: int
    exchange: str
    routing_key: str
    body: bytes
    reply_to: str | None
    correlation_id: str | None
    headers: Mapping[str, Any]
    delivery_count: int = 0


@dataclass(eq=False)
class SimulatedChannel:
    """A channel: its deliveries that are neither acked nor requeued, until it is lost."""

    broker: SimulatedBroker
    queue: str
    unsettled: dict[int, Held] = field(default_factory=dict)
    last_tag: int = 0
    is_lost: bool = False

    def __post_init__(self) -> None:
        self.lost = SimpleNamespace(done=lambda: self.is_lost)
        self.raw = SimpleNamespace(basic_ack=self._ack, basic_nack=self._nack)

    def deliver(self, held: Held) -> Delivery:
        """Returns a message as a delivery of this channel."""
        self.last_tag += 1
        self.unsettled[self.last_tag] = held
        counted = {DELIVERY_COUNT_HEADER: held.delivery_count} if held.delivery_count else {}
        return Delivery(
            queue=self.queue,
            exchange=held.exchange,
            routing_key=held.routing_key,
            body=held.body,
            amqp_channel=cast("AmqpChannel", self),
            delivery_tag=self.last_tag,
            redelivered=held.delivery_count > 0,
            correlation_id=held.correlation_id,
            reply_to=held.reply_to,
            headers={**held.headers, **counted},
        )

    def lose(self) -> None:
        """Takes everything back into the queue."""
        self.is_lost = True
        for tag in sorted(self.unsettled, reverse=True):
            self._take_back(tag)

    def _ack(self, delivery_tag: int) -> None:
        self._check_open()
        assert delivery_tag in self.unsettled, "a delivery is settled twice"
        self.broker.forget(self.unsettled.pop(delivery_tag))

    def _nack(self, delivery_tag: int, requeue: bool) -> None:
        self._check_open()
        assert delivery_tag in self.unsettled, "a delivery is settled twice"
        assert requeue
        self._take_back(delivery_tag)

    def _take_back(self, delivery_tag: int) -> None:
        held = self.unsettled.pop(delivery_tag)
        held.delivery_count += 1
        self.broker.queues[self.queue].appendleft(held)

    def _check_open(self) -> None:
        if self.is_lost:
            raise ChannelWrongStateError


class SimulatedBroker:
    """Queues, and whoever publishes to them and consumes them; nothing moves unless it is told to.

    Args:
        work_queues: the names of the work queues.
        may_forget: is asked at a delivery ack where no other copy of the package is here.
        replied: is told of every reply.

    Attributes:
        consumer, publisher: of the program that is connected.
        acked_count: the delivery acks.
    """

    def __init__(
        self, work_queues: list[str], may_forget: Callable[[int], bool], replied: Callable[[Message], None]
    ) -> None:
        self.queues: dict[str, deque[Held]] = {
            name: deque() for name in (*work_queues, DEAD_LETTER_QUEUE, QUARANTINE_QUEUE)
        }
        self.channels: list[SimulatedChannel] = []
        self.consumer: SimulatedConsumer
        self.publisher: SimulatedPublisher
        self.acked_count = 0
        self._may_forget = may_forget
        self._replied = replied

    @property
    def unsettled_count(self) -> int:
        """The deliveries that are in hand."""
        return sum(len(channel.unsettled) for channel in self.channels)

    def copies(self, number: int) -> int:
        """Returns how many messages here are a package or a copy of it."""
        ready = [held for queue in self.queues.values() for held in queue]
        in_hand = [held for channel in self.channels for held in channel.unsettled.values()]
        return sum(held.number == number for held in (*ready, *in_hand))

    def dead_letters(self) -> set[int]:
        """Returns the packages that are dead letters."""
        return {held.number for held in self.queues[DEAD_LETTER_QUEUE]}

    def forget(self, held: Held) -> None:
        """Forgets a message, which must not lose anything."""
        self.acked_count += 1
        assert self.copies(held.number) or self._may_forget(held.number), "acked, not stored, and no copy is left"

    def take(self, message: Message) -> None:
        """Takes a message in that was published."""
        assert not message.exchange or message.routing_key in self.queues
        if message.routing_key.startswith("amq.gen-"):
            self._replied(message)
            return
        number = message.headers[NUMBER_HEADER]
        assert isinstance(number, int)
        self.queues[message.routing_key].append(
            Held(
                number,
                message.exchange,
                message.routing_key,
                message.body,
                message.reply_to,
                message.correlation_id,
                message.headers,
            )
        )

    def new_channel(self, queue: str) -> SimulatedChannel:
        """Returns a new channel."""
        self.channels = [channel for channel in self.channels if not channel.is_lost]
        self.channels.append(SimulatedChannel(self, queue))
        return self.channels[-1]

    def lose_channels(self) -> None:
        """Ends the connection that packages come over."""
        for channel in self.channels:
            channel.lose()
        self.consumer.connection_lost()


class SimulatedConsumer:
    """Stands for `WorkConsumer`: a wish takes effect a moment later, as with a broker.

    Attributes:
        closes_late: whether channels that are released stay open, and deliver, until `close_released` is called.
    """

    def __init__(
        self,
        broker: SimulatedBroker,
        delays_s: Mapping[str, float],
        prefetch_count: int,
        emit: Callable[[ConsumerEvent], None],
    ) -> None:
        self.getter = SimulatedGetter(broker)
        self.connected = True
        self._broker = broker
        self._prefetch_count = prefetch_count
        self._emit = emit
        self._consuming = dict.fromkeys(delays_s, False)
        self._channels: dict[str, SimulatedChannel] = {}
        self._released = False
        self.closes_late = False
        broker.consumer = self

    def is_consuming(self) -> bool:
        """Whether the queues are consumed."""
        return all(self._consuming.values())

    async def run(self) -> None:
        await asyncio.Event().wait()

    def register(self) -> None:
        self._released = False
        for queue, consuming in self._consuming.items():
            if not consuming:
                self._consuming[queue] = True
                asyncio.get_running_loop().call_soon(self._emit, Registered(queue))

    def suspend(self) -> None:
        for queue in self._consuming:
            asyncio.get_running_loop().call_soon(self._cancel, queue)

    def release(self) -> None:
        self._released = True
        if not self.closes_late:
            asyncio.get_running_loop().call_soon(self.close_released)

    def close_released(self) -> None:
        """Closes the channels, unless their queues are registered again."""
        if not self._released:
            return
        for queue in self._consuming:
            self._consuming[queue] = False
            channel = self._channels.pop(queue, None)
            if channel is not None and not channel.is_lost:
                channel.lose()
            self._emit(TakenBack(queue))

    def deliver(self, queue: str) -> None:
        """Delivers what waits in a queue, if it is consumed and as far as the prefetch count allows."""
        while self._consuming[queue] and self._broker.queues[queue]:
            channel = self._channels.get(queue)
            if channel is None or channel.is_lost:
                channel = self._channels[queue] = self._broker.new_channel(queue)
            if len(channel.unsettled) >= self._prefetch_count:
                return
            self._emit(channel.deliver(self._broker.queues[queue].popleft()))

    def connection_lost(self) -> None:
        """Reports that the broker took everything back, and that queues are consumed again if they should be."""
        for queue, consuming in self._consuming.items():
            asyncio.get_running_loop().call_soon(self._emit, TakenBack(queue))
            if self._released:
                self._consuming[queue] = False
            elif consuming:
                asyncio.get_running_loop().call_soon(self._emit, Registered(queue))

    def _cancel(self, queue: str) -> None:
        self._consuming[queue] = False
        self._emit(Suspended(queue))


class SimulatedGetter:
    """Stands for `Getter`.

    Attributes:
        connected: whether there is a connection.
        loses_next: whether the connection is lost while the next message is on its way.
    """

    def __init__(self, broker: SimulatedBroker) -> None:
        self._broker = broker
        self._channel: SimulatedChannel | None = None
        self.connected = True
        self.loses_next = False

    async def message_count(self, queue: str) -> int:
        self._check_connected()
        return len(self._broker.queues[queue])

    async def get(self, queue: str) -> Delivery | None:
        self._check_connected()
        if not self._broker.queues[queue]:
            return None
        if self._channel is None or self._channel.is_lost:
            self._channel = self._broker.new_channel(queue)
        delivery = self._channel.deliver(self._broker.queues[queue].popleft())
        if self.loses_next:
            self.loses_next = False
            self._channel.lose()
            raise ConnectionLostError("lost while the message was on its way")
        return delivery

    def _check_connected(self) -> None:
        if not self.connected:
            raise ConnectionLostError("there is no connection")


class SimulatedPublisher:
    """Stands for `Publisher`: what it publishes is on its way until it is told what becomes of it."""

    def __init__(self, broker: SimulatedBroker, listener: PublisherListener) -> None:
        self.blocked = False
        self.connected = True
        self.underway: deque[Message] = deque()
        self._broker = broker
        self._listener = listener
        broker.publisher = self

    @property
    def ready(self) -> bool:
        return not self.blocked

    async def run(self) -> None:
        await asyncio.Event().wait()

    def publish(self, message: Message) -> None:
        self.underway.append(replace(message))

    def confirm_next(self) -> None:
        """Lets the next message arrive, and confirms it."""
        message = self.underway.popleft()
        self._broker.take(message)
        self._listener.confirmed(message.token)

    def refuse_next(self) -> None:
        """Refuses the next message: its queue is full."""
        self._listener.nacked(self.underway.popleft().token)

    def return_next(self) -> None:
        """Returns the next message, which has no queue, if it is mandatory, and confirms it."""
        message = self.underway.popleft()
        if message.mandatory:
            self._listener.returned(message.token, message.exchange, message.routing_key)
        self._listener.confirmed(message.token)

    def lose(self, arrived_count: int) -> None:
        """Ends the connection when some of what is on its way has arrived; no confirm of it comes back."""
        for message in list(self.underway)[:arrived_count]:
            self._broker.take(message)
        self.underway.clear()
        self.blocked = False
        self._listener.publisher_lost()
        self._listener.publisher_ready()

    def block(self, blocked: bool) -> None:
        """Blocks or unblocks publishes."""
        if blocked is not self.blocked:
            self.blocked = blocked
            (self._listener.publisher_blocked if blocked else self._listener.publisher_ready)()
