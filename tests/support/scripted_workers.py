"""Workers that answer as a test says, over a real broker; and changes of its topology."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError
from pika.spec import Basic, BasicProperties

from provgate_broker.amqp.connection import AmqpParameters, open_session
from provgate_broker.settings import RabbitMqSettings
from provgate_broker.topology.declaration import declare_topology
from provgate_broker.topology.policy import RangePolicy, parse_binding_key
from provgate_broker.wire.package import Nack, encode_reply
from provgate_stack.stack import StorageConfig
from provgate_storage.registry import local_storage
from tests.support.entries import Entry, decode_entries
from tests.support.polling import TIMEOUT_S, eventually

_RECONNECT_S = 0.1


@dataclass(frozen=True)
class Request:
    """A package as a worker gets it."""

    queue: str
    exchange: str
    routing_key: str
    properties: BasicProperties
    body: bytes

    @property
    def entries(self) -> list[Entry]:
        return decode_entries(self.body, parse_binding_key(self.queue)[0])

    @property
    def correlation_id(self) -> str:
        return str(self.properties.correlation_id)


@dataclass(frozen=True)
class Answer:
    """One reply: to the request's own correlation id unless another one is given."""

    body: bytes
    correlation_id: str | None = None


Script = Callable[[Request], Iterable[Answer]]


def in_full(request: Request) -> list[Answer]:
    return counts(len(request.entries))


def silent(_: Request) -> list[Answer]:
    return []


def counts(*numbers: int) -> list[Answer]:
    return [Answer(encode_reply(number)) for number in numbers]


def refusal(request: Request) -> list[Answer]:
    return [Answer(encode_reply(Nack("malformed", "a row is short", len(request.entries))))]


class ScriptedWorkers:
    """Consumes the queues of a virtual host on a thread of its own and connects again when it must.

    Deliveries are acked to the broker at once.

    Args:
        url: the URL of the virtual host.
        leaves: returns whether it leaves a queue alone, by its name.

    Attributes:
        script: returns the answers to a request; may be set at any time.
        requests: all requests, in order.
    """

    def __init__(self, url: str, leaves: Callable[[str], bool] = lambda _: False) -> None:
        self.script: Script = in_full
        self.requests: list[Request] = []
        self._parameters = pika.URLParameters(url)
        self._queues = [queue.name for queue in RangePolicy().queues() if not leaves(queue.name)]
        self._consuming = threading.Event()
        self._stopping = threading.Event()
        self._amqp_channel: BlockingChannel | None = None
        self._thread = threading.Thread(target=self._run, name="scripted-workers")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._consuming.wait(TIMEOUT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()

    def reset(self) -> None:
        """Forgets all requests, and answers in full again."""
        self.script = in_full
        self.requests.clear()

    def wait_for(self, request_count: int, timeout_s: float = TIMEOUT_S) -> list[Request]:
        """Returns the requests once there are `request_count` or more."""
        eventually(lambda: len(self.requests) >= request_count, f"{request_count} packages come", timeout_s)
        return list(self.requests)

    def answer(self, request: Request, *answers: Answer) -> None:
        """Answers a request later than its script did, from the thread of the test."""
        with pika.BlockingConnection(self._parameters) as connection:
            _reply(connection.channel(), request, answers)

    def _run(self) -> None:
        while not self._stopping.is_set():
            with suppress(AMQPError, OSError):
                self._consume()
            self._consuming.clear()
            self._stopping.wait(_RECONNECT_S)

    def _consume(self) -> None:
        with pika.BlockingConnection(self._parameters) as connection:
            self._amqp_channel = connection.channel()
            for queue in self._queues:
                self._amqp_channel.basic_consume(queue, self._handler(queue), auto_ack=True)
            self._consuming.set()
            while not self._stopping.is_set():
                connection.process_data_events(time_limit=0.05)

    def _handler(self, queue: str) -> Callable[[BlockingChannel, Basic.Deliver, BasicProperties, bytes], None]:
        def handle(
            amqp_channel: BlockingChannel, method: Basic.Deliver, properties: BasicProperties, body: bytes
        ) -> None:
            request = Request(queue, str(method.exchange), str(method.routing_key), properties, body)
            self.requests.append(request)
            _reply(amqp_channel, request, self.script(request))

        return handle


def _reply(amqp_channel: BlockingChannel, request: Request, answers: Iterable[Answer]) -> None:
    for answer in answers:
        id = request.properties.correlation_id if answer.correlation_id is None else answer.correlation_id
        properties = BasicProperties(content_type="application/msgpack", correlation_id=id or None)
        amqp_channel.basic_publish("", str(request.properties.reply_to), answer.body, properties)


def set_up(amqp_url: str, storage_config: StorageConfig) -> None:
    """Declares the topology and creates the schema, as `provgate-workers setup` does."""
    asyncio.run(_declare(amqp_url))
    with local_storage(storage_config, "provenance.rabbitmq") as storage:
        storage.setup({exchange.value: count for exchange, count in RangePolicy().counts.items()})


async def _declare(amqp_url: str) -> None:
    session = await open_session(AmqpParameters(amqp_url, 10), "set-up of a test")
    try:
        await declare_topology(session, RangePolicy(), RabbitMqSettings())
    finally:
        await session.close()


def replace_queue(amqp_url: str, name: str, arguments: dict[str, Any]) -> None:
    """Replaces a work queue by one with other arguments."""
    with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
        amqp_channel = connection.channel()
        amqp_channel.queue_delete(name)
        amqp_channel.queue_declare(name, durable=True, arguments=arguments)
        exchange = next(queue.exchange.value for queue in RangePolicy().queues() if queue.name == name)
        amqp_channel.queue_bind(name, exchange, name)


def delete_exchange(amqp_url: str, name: str) -> None:
    """Deletes an exchange."""
    with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
        connection.channel().exchange_delete(name)


def delete_queue(amqp_url: str, name: str) -> None:
    """Deletes a queue."""
    with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
        connection.channel().queue_delete(name)
