"""Declaring the topology on a broker, and checking it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pika.exchange_type import ExchangeType

from provgate_broker.amqp.connection import (
    ACCESS_REFUSED,
    NOT_FOUND,
    PRECONDITION_FAILED,
    AmqpSession,
    QuestionChannel,
    questions,
)
from provgate_broker.errors import ConnectionLostError, MissingTopologyError, NotPermittedError, TopologyError
from provgate_broker.settings import RabbitMqSettings
from provgate_broker.topology.policy import Exchange, Operation, Queue, RangePolicy, binding_key, operations_of
from provgate_runtime.counted import counted

DEAD_LETTER_QUEUE: Final = "provgate.dead-letters"
"""Where packages go that cannot be stored. Published to through the default exchange; nobody consumes it."""

QUARANTINE_QUEUE: Final = "provgate.quarantine"
"""Where packages wait that may have killed the programs that handled them. Workers take them one at a time."""

# From here on a quorum queue drops a message after 20 redeliveries unless it is told not to; before, -1 means 0.
_DELIVERY_LIMIT_SINCE: Final = (4, 0)


@dataclass(frozen=True, slots=True)
class QueueState:
    """What a passive declaration tells of a queue.

    Attributes:
        message_count: the messages that wait; those in a consumer's hands are not among them.
        consumer_count: the consumers that get messages; those that stand by are not among them.
    """

    message_count: int
    consumer_count: int


def queue_arguments(
    settings: RabbitMqSettings, broker_version: tuple[int, ...], *, single_active_consumer: bool = True
) -> dict[str, Any]:
    """Returns the arguments of a durable quorum queue.

    Args:
        settings: the queue's length.
        broker_version: as `AmqpSession.broker_version` has it.
        single_active_consumer: whether the broker gives the queue to one consumer at a time.
    """
    arguments: dict[str, Any] = {
        "x-queue-type": "quorum",
        "x-overflow": "reject-publish",
        "x-max-length-bytes": settings.queue_max_length_bytes,
    }
    if single_active_consumer:
        arguments["x-single-active-consumer"] = True
    if broker_version >= _DELIVERY_LIMIT_SINCE:
        arguments["x-delivery-limit"] = -1
    return arguments


async def declare_topology(session: AmqpSession, policy: RangePolicy, settings: RabbitMqSettings) -> None:
    """Declares exchanges, work queues and bindings, and the queues for packages that cannot be stored just so.

    What is there as it should be stays.

    Raises:
        TopologyError: something is there with other arguments.
        NotPermittedError: the user may not configure it, whether it is there or not. The session is lost with it.
        ConnectionLostError: the connection broke.
    """
    for exchange in Exchange:
        await _declare_exchange(session, exchange)
    arguments = queue_arguments(settings, session.broker_version)
    for queue in policy.queues():
        await _declare_queue(session, queue.name, arguments)
        await _bind(session, queue)
    aside_arguments = queue_arguments(settings, session.broker_version, single_active_consumer=False)
    for name in (DEAD_LETTER_QUEUE, QUARANTINE_QUEUE):
        await _declare_queue(session, name, aside_arguments)


async def check_topology(session: AmqpSession, policy: RangePolicy) -> None:
    """Checks that every exchange has the last queue of each of its operations, and none beyond.

    Raises:
        MissingTopologyError: queues are missing.
        TopologyError: there are more than `policy` knows.
        ConnectionLostError: the connection broke.
    """
    async with questions(session) as asked:
        for exchange in Exchange:
            for operation in operations_of(exchange):
                await _check_range_count(asked, exchange, operation, policy.counts[exchange])


async def _check_range_count(asked: QuestionChannel, exchange: Exchange, operation: Operation, count: int) -> None:
    last, beyond = binding_key(operation, count - 1), binding_key(operation, count)
    if await queue_state(asked, last) is None:
        raise MissingTopologyError(
            f"the broker has no queue {last}: run `provgate-workers setup`, or set"
            f" provenance.rabbitmq.ranges.{exchange} to what the workers use",
            partial=await queue_state(asked, binding_key(operation, 0)) is not None,
        )
    if await queue_state(asked, beyond) is not None:
        raise TopologyError(
            f"the broker has a queue {beyond}, but provenance.rabbitmq.ranges.{exchange} is {count}: set it to"
            f" what the workers use"
        )


async def remove_outgrown_queues(session: AmqpSession, old: RangePolicy, new: RangePolicy) -> None:
    """Removes the queues of range counts that change.

    Raises:
        TopologyError: such a queue holds packages or is consumed; nothing is removed then.
        ConnectionLostError: the connection broke.
    """
    outgrown = [queue for queue in old.queues() if old.counts[queue.exchange] != new.counts[queue.exchange]]
    async with questions(session) as asked:
        for queue in outgrown:
            state = await queue_state(asked, queue.name)
            if state is not None and (state.message_count or state.consumer_count):
                raise TopologyError(
                    f"the range count of exchange {queue.exchange} cannot change from {old.counts[queue.exchange]} to"
                    f" {new.counts[queue.exchange]}: queue {queue.name} holds {counted(state.message_count, 'package')}"
                    f" and has {counted(state.consumer_count, 'consumer')}; let the workers drain it, then stop them"
                )
    for queue in outgrown:
        await _delete_queue(session, queue.name)


async def queue_state(asked: QuestionChannel, name: str) -> QueueState | None:
    """Returns the state of a queue; None where there is none. It takes no right on the queue."""
    try:
        declared = await asked.call(lambda raw, callback: raw.queue_declare(name, passive=True, callback=callback))
    except ConnectionLostError as error:
        if error.reply_code == NOT_FOUND:
            return None
        raise
    return QueueState(declared.method.message_count, declared.method.consumer_count)


async def _declare_exchange(session: AmqpSession, exchange: Exchange) -> None:
    try:
        await session.call(
            lambda callback: session.amqp_channel.raw.exchange_declare(
                exchange.value, ExchangeType.direct, durable=True, callback=callback
            )
        )
    except ConnectionLostError as error:
        raise _explained(error, f"exchange {exchange}") from error


async def _declare_queue(session: AmqpSession, name: str, arguments: Mapping[str, Any]) -> None:
    try:
        await session.call(
            lambda callback: session.amqp_channel.raw.queue_declare(
                name, durable=True, arguments=dict(arguments), callback=callback
            )
        )
    except ConnectionLostError as error:
        raise _explained(error, f"queue {name}") from error


async def _bind(session: AmqpSession, queue: Queue) -> None:
    try:
        await session.call(
            lambda callback: session.amqp_channel.raw.queue_bind(
                queue.name, queue.exchange.value, queue.name, callback=callback
            )
        )
    except ConnectionLostError as error:
        raise _explained(error, f"the binding of queue {queue.name}") from error


async def _delete_queue(session: AmqpSession, name: str) -> None:
    # Unconditional: a quorum queue refuses if-empty and if-unused. A package that comes between the look at the queue
    # and here was never acked.
    await session.call(lambda callback: session.amqp_channel.raw.queue_delete(name, callback=callback))


def _explained(error: ConnectionLostError, what: str) -> Exception:
    if error.reply_code == ACCESS_REFUSED:
        return NotPermittedError(
            f"the user of provenance.rabbitmq.url may not declare {what}: run `provgate-workers setup` as one that may"
        )
    if error.reply_code != PRECONDITION_FAILED:
        return error
    return TopologyError(
        f"{what} is on the broker with other properties ({error}): delete it once it is empty, or set"
        f" provenance.rabbitmq.queue_max_length_bytes to what it was declared with"
    )
