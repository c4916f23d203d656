"""Reads and replays dead letters, for operators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from provgate_broker.amqp.connection import AmqpParameters, AmqpSession, open_session
from provgate_broker.consume.reply_consumer import ReplyConsumer
from provgate_broker.consume.work_consumer import Getter
from provgate_broker.dead_letters.messages import DeadLetter, read_dead_letter
from provgate_broker.errors import BrokerError
from provgate_broker.publish.publisher import Message, Publisher
from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE
from provgate_broker.wire.package import CONTENT_TYPE, NACK_HEADER, Reply


class ReplayError(BrokerError):
    """A dead letter was not replayed. It is still in the dead-letter queue."""


class DeadLetterQueue:
    """The dead-letter queue, for one reader. Belongs to one event loop.

    Letters that were read and not acked return to their place in the queue when the session ends. Until then no other
    reader sees them.

    Attributes:
        parameters: the address of the broker.
    """

    def __init__(self, session: AmqpSession, parameters: AmqpParameters) -> None:
        self.parameters = parameters
        self._getter = Getter(session)

    async def letters(self) -> AsyncIterator[DeadLetter]:
        """Yields the dead letters that wait now, oldest first, without those that arrive during the iteration.

        Raises:
            ConnectionLostError: the connection broke.
        """
        for _ in range(await self._getter.message_count(DEAD_LETTER_QUEUE)):
            delivery = await self._getter.get(DEAD_LETTER_QUEUE)
            if delivery is None:
                return
            yield read_dead_letter(delivery)


@asynccontextmanager
async def open_dead_letter_queue(parameters: AmqpParameters) -> AsyncIterator[DeadLetterQueue]:
    """Opens the dead-letter queue.

    Raises:
        ConnectionLostError: the broker cannot be reached.
    """
    session = await open_session(parameters, "provgate-workers dlq")
    try:
        yield DeadLetterQueue(session, parameters)
    finally:
        await session.close()


class Replayer:
    """Publishes dead letters to their source, and waits for the worker's reply. Belongs to one event loop.

    Listens to its own publisher and reply consumer.

    Args:
        parameters: the address of the broker.
        timeout_s: the time limit of one replay.
    """

    def __init__(self, parameters: AmqpParameters, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._ready = asyncio.Event()
        self._replies: dict[str, asyncio.Future[Reply]] = {}
        self._publisher = Publisher(parameters, "provgate-workers dlq replay", self)
        self._reply_consumer = ReplyConsumer(parameters, "provgate-workers dlq replies", self)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keeps the connections that `replay` needs."""
        tasks = [asyncio.create_task(part.run()) for part in (self._publisher, self._reply_consumer)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def replay(self, letter: DeadLetter) -> Reply:
        """Publishes a dead letter again, and returns the worker's reply.

        A `Nack` means that the package is a new dead letter: the old one can be dropped, as after a count.

        Raises:
            ReplayError: no queue takes it, the broker refuses it, or no worker replied in time. In the last case the
                package may be stored, now or later.
        """
        token = uuid4().hex
        replied: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._replies[token] = replied
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._ready.wait()
                self._publisher.publish(
                    Message(
                        token=token,
                        exchange=letter.exchange,
                        routing_key=letter.routing_key,
                        body=letter.delivery.body,
                        content_type=letter.delivery.content_type or CONTENT_TYPE,
                        reply_to=self._reply_consumer.queue,
                        headers={NACK_HEADER: True},
                    )
                )
                return await replied
        except TimeoutError as error:
            raise ReplayError(f"no worker replied within {self._timeout_s:.0f} s") from error
        finally:
            del self._replies[token]

    def publisher_ready(self) -> None:
        """Lets replays go on if both connections are there."""
        if self._publisher.ready and self._reply_consumer.queue is not None:
            self._ready.set()

    def publisher_blocked(self) -> None:
        """Stops replays until the broker unblocks the publisher; those that wait may time out."""
        self._ready.clear()

    reply_queue_ready = publisher_ready
    publisher_lost = publisher_blocked
    reply_queue_lost = publisher_blocked

    def confirmed(self, token: str) -> None:
        """Does nothing: the worker's reply ends a replay."""

    def nacked(self, token: str) -> None:
        """Fails a replay: the broker refuses the package."""
        self._fail(token, "the broker refuses it: is its queue full?")

    def returned(self, token: str, exchange: str, routing_key: str) -> None:
        """Fails a replay: there is no such queue."""
        self._fail(token, f"no queue takes routing key {routing_key!r} at exchange {exchange!r}")

    def replied(self, correlation_id: str, reply: Reply) -> None:
        """Ends a replay with a worker's reply."""
        replied = self._replies.get(correlation_id)
        if replied is not None and not replied.done():
            replied.set_result(reply)

    def _fail(self, token: str, text: str) -> None:
        replied = self._replies.get(token)
        if replied is not None and not replied.done():
            replied.set_exception(ReplayError(text))
