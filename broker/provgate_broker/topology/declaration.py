"""Declares exchanges, queues and bindings on a broker, and checks the range counts of what is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from provgate_broker.amqp.connection import ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED, AmqpSession
from provgate_broker.errors import ConnectionLostError, MissingTopologyError, NotPermittedError, TopologyError
from provgate_broker.settings import RabbitMqSettings
from provgate_broker.topology.policy import Exchange, RangePolicy, binding_key, operations_of
from provgate_runtime.counted import counted

DEAD_LETTER_QUEUE: Final = "provgate.dead-letters"
"""Holds packages that cannot be stored. They are published to it through the default exchange; nobody consumes it."""

QUARANTINE_QUEUE: Final = "provgate.quarantine"
"""Holds packages that may have killed the programs that handled them. Workers take them one at a time."""

# From this version on a quorum queue drops a message after 20 redeliveries by default, and -1 means no limit. An older
# broker reads -1 as 0.
_DELIVERY_LIMIT_SINCE: Final = (4, 0)


@dataclass(frozen=True, slots=True)
class QueueState:
    """What a passive declaration returns of a queue.

    Attributes:
        message_count: the messages that wait, without those that are delivered and not acked.
        consumer_count: the active consumers; those of a single-active-consumer queue that stand by do not count.
    """

    message_count: int
    consumer_count: int


def queue_arguments(
    settings: RabbitMqSettings, broker_version: tuple[int, ...], *, single_active_consumer: bool = True
) -> dict[str, object]:
    """Returns the arguments of a durable quorum queue.

    Args:
        settings: has the queue's length limit.
        broker_version: `AmqpSession.broker_version`.
        single_active_consumer: whether the broker delivers to one consumer at a time.
    """
    arguments: dict[str, object] = {
        "x-queue-type": "quorum",
        "x-overflow": "reject-publish",
        "x-max-length-bytes": settings.queue_max_length_bytes,
    }
    if single_active_consumer:
        arguments["x-single-active-consumer"] = True
    if broker_version >= _DELIVERY_LIMIT_SINCE:
        arguments["x-delivery-limit"] = -1
    return arguments


def expected_queues(
    settings: RabbitMqSettings, policy: RangePolicy, broker_version: tuple[int, ...]
) -> dict[str, dict[str, object]]:
    """Returns the arguments of every queue that set-up declares, by name: work queues, dead letters, quarantine."""
    work = queue_arguments(settings, broker_version)
    other = queue_arguments(settings, broker_version, single_active_consumer=False)
    return {queue.name: work for queue in policy.queues()} | dict.fromkeys((DEAD_LETTER_QUEUE, QUARANTINE_QUEUE), other)


async def declare_topology(session: AmqpSession, policy: RangePolicy, settings: RabbitMqSettings) -> None:
    """Declares the exchanges, the queues and the bindings. What exists with the same properties stays.

    Raises:
        TopologyError: something exists with other properties.
        NotPermittedError: the user may not configure an exchange or queue, even if it exists. The session is lost.
        ConnectionLostError: the connection broke.
    """
    amqp_channel, what = session.amqp_channel, ""
    try:
        for exchange in Exchange:
            what = f"exchange {exchange}"
            await amqp_channel.declare_exchange(exchange.value)
        exchanges = {queue.name: queue.exchange for queue in policy.queues()}
        for name, arguments in expected_queues(settings, policy, session.broker_version).items():
            what = f"queue {name}"
            await amqp_channel.declare_queue(name, durable=True, arguments=arguments)
            # Before the next queue: `check_topology` looks only at queues, and a gateway publishes when it succeeds.
            if name in exchanges:
                what = f"the binding of queue {name}"
                await amqp_channel.bind_queue(name, exchanges[name].value, name)
    except ConnectionLostError as error:
        if error.reply_code == ACCESS_REFUSED:
            raise NotPermittedError(
                f"the user of provenance.rabbitmq.url may not declare {what}: run `provgate-workers setup` as a user"
                " that may"
            ) from error
        if error.reply_code == PRECONDITION_FAILED:
            raise TopologyError(
                f"{what} is on the broker with other properties ({error}): delete it once it is empty, or set"
                f" provenance.rabbitmq.queue_max_length_bytes to the value that it was declared with"
            ) from error
        raise


async def check_topology(session: AmqpSession, policy: RangePolicy) -> None:
    """Checks for each exchange and operation that the queue of the last range exists, and that no further one does.

    Raises:
        MissingTopologyError: queues are missing.
        TopologyError: there are queues of more ranges than `policy` has.
        ConnectionLostError: the connection broke.
    """
    for exchange, count in policy.counts.items():
        for operation in operations_of(exchange):
            first, last, beyond = (binding_key(operation, number) for number in (0, count - 1, count))
            if await queue_state(session, last) is None:
                raise MissingTopologyError(
                    f"the broker has no queue {last}: run `provgate-workers setup`, or set"
                    f" provenance.rabbitmq.ranges.{exchange} to the count that the workers use",
                    partial=await queue_state(session, first) is not None,
                )
            if await queue_state(session, beyond) is not None:
                raise TopologyError(
                    f"the broker has a queue {beyond}, but provenance.rabbitmq.ranges.{exchange} is {count}: set it to"
                    f" the count that the workers use"
                )


async def remove_outgrown_queues(session: AmqpSession, old: RangePolicy, new: RangePolicy) -> None:
    """Removes the old queues of exchanges whose range count changes.

    Raises:
        TopologyError: such a queue holds packages or has consumers; nothing is removed.
        ConnectionLostError: the connection broke.
    """
    outgrown = [queue for queue in old.queues() if old.counts[queue.exchange] != new.counts[queue.exchange]]
    for queue in outgrown:
        state = await queue_state(session, queue.name)
        if state is not None and (state.message_count or state.consumer_count):
            raise TopologyError(
                f"the range count of exchange {queue.exchange} cannot change from {old.counts[queue.exchange]} to"
                f" {new.counts[queue.exchange]}: queue {queue.name} holds {counted(state.message_count, 'package')}"
                f" and has {counted(state.consumer_count, 'consumer')}; let the workers drain it, then stop them"
            )
    for queue in outgrown:
        # A package that arrives after the check was never acked, so its sender publishes it again.
        await session.amqp_channel.delete_queue(queue.name)


async def queue_state(session: AmqpSession, name: str) -> QueueState | None:
    """Returns the state of a queue, or None if it does not exist. It needs no right on the queue.

    Raises:
        ConnectionLostError: the connection broke.
    """
    try:
        async with session.question_channel() as amqp_channel:
            declared = await amqp_channel.declare_queue(name, passive=True)
    except ConnectionLostError as error:
        if error.reply_code == NOT_FOUND:
            return None
        raise
    return QueueState(declared.message_count or 0, declared.consumer_count or 0)
