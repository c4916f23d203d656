"""Compares the broker with what it should have, without changing it: queues, range counts, rights, alarms.

| question | how it is asked | right that it needs |
|---|---|---|
| does a queue or an exchange exist, how many messages and consumers has it | passive declaration | none |
| does a queue have the arguments of set-up | declaration of an existing queue | configure |
| may the user publish, is there an alarm | publish that no queue takes | write |
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from provgate_broker.amqp.connection import ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED, AmqpSession
from provgate_broker.errors import ConnectionLostError, NotPermittedError
from provgate_broker.settings import RabbitMqSettings
from provgate_broker.topology.declaration import (
    DEAD_LETTER_QUEUE,
    QUARANTINE_QUEUE,
    QueueState,
    expected_queues,
    queue_state,
)
from provgate_broker.topology.policy import RANGE_COUNTS, Exchange, Queue, RangePolicy, binding_key, operations_of

PROBE_ROUTING_KEY: Final = "provgate.probe"
"""No queue is bound with it: the broker drops a message with this key, and confirms it."""


@dataclass(frozen=True, slots=True)
class InspectedQueue:
    """A queue that should exist.

    Attributes:
        name: the name.
        state: None if the queue is missing.
        difference: the broker's text about arguments that differ from those of set-up; None if none is known.
    """

    name: str
    state: QueueState | None
    difference: str | None = None


@dataclass(frozen=True, slots=True)
class TopologyReport:
    """The result of an inspection.

    Attributes:
        work: the work queues.
        dead_letter_queues: the dead-letter and the quarantine queue; empty for another deployment's broker.
        exchanges: the exchanges that are wrong, with what is wrong.
        range_counts: the exchanges whose queues show another range count than the configured one, with that count; None
            for more ranges than the configured ones.
        compared: whether queue arguments were compared. False if that was not asked for, or the user may not configure.
    """

    work: Mapping[Queue, InspectedQueue]
    dead_letter_queues: Mapping[str, InspectedQueue]
    exchanges: Mapping[Exchange, str]
    range_counts: Mapping[Exchange, int | None]
    compared: bool

    @property
    def missing(self) -> list[str]:
        """The names of the missing queues."""
        return [queue.name for queue in self._all() if queue.state is None]

    @property
    def different(self) -> dict[str, str]:
        """The names of the queues with other arguments, with the broker's text."""
        return {queue.name: queue.difference for queue in self._all() if queue.difference is not None}

    @property
    def unconsumed(self) -> list[str]:
        """The names of the work queues that exist and have no consumer."""
        return [
            queue.name for queue in self.work.values() if queue.state is not None and not queue.state.consumer_count
        ]

    def _all(self) -> Iterator[InspectedQueue]:
        yield from self.work.values()
        yield from self.dead_letter_queues.values()


async def inspect_topology(
    session: AmqpSession,
    policy: RangePolicy,
    settings: RabbitMqSettings,
    *,
    compare_arguments: bool = True,
    outgrown: Collection[Exchange] | None = None,
) -> TopologyReport:
    """Inspects all exchanges and queues, one after the other.

    Args:
        session: one that has not published: the broker does not answer on it while an alarm blocks it.
        policy: the range counts.
        settings: what the queues should be. With `topology: existing` arguments are not compared, and the dead-letter
            and quarantine queues are not inspected.
        compare_arguments: whether to compare the arguments of queues. The broker logs a line for each difference, and
            for a user who may not configure.
        outgrown: the result of an earlier `outgrown_exchanges`; None asks the broker.

    Raises:
        ConnectionLostError: the connection broke.
    """
    own = settings.topology == "own"
    comparing = own and compare_arguments
    found: dict[str, InspectedQueue] = {}
    for name, arguments in expected_queues(settings, policy, session.broker_version).items():
        if not own and name in (DEAD_LETTER_QUEUE, QUARANTINE_QUEUE):
            continue
        state, difference = await queue_state(session, name), None
        # The comparison would create a missing queue.
        if state is not None and comparing:
            try:
                difference = await _difference(session, name, arguments)
            except NotPermittedError:
                comparing = False
        found[name] = InspectedQueue(name, state, difference)
    if outgrown is None:
        outgrown = await outgrown_exchanges(session, policy)
    work = {queue: found.pop(queue.name) for queue in policy.queues()}
    exchanges = {exchange: await _exchange_problem(session, exchange) for exchange in Exchange}
    return TopologyReport(
        work=work,
        dead_letter_queues=found,
        exchanges={exchange: problem for exchange, problem in exchanges.items() if problem is not None},
        range_counts=_different_range_counts(policy, work, outgrown),
        compared=comparing,
    )


async def outgrown_exchanges(session: AmqpSession, policy: RangePolicy) -> frozenset[Exchange]:
    """Returns the exchanges that have queues of more ranges than the policy.

    It asks for queues that should not exist, and the broker logs a line for each: do not call it often.

    Raises:
        ConnectionLostError: the connection broke.
    """
    outgrown = set()
    for exchange, count in policy.counts.items():
        for operation in operations_of(exchange):
            if await queue_state(session, binding_key(operation, count)) is not None:
                outgrown.add(exchange)
    return frozenset(outgrown)


async def _difference(session: AmqpSession, name: str, arguments: Mapping[str, object]) -> str | None:
    try:
        async with session.question_channel() as amqp_channel:
            await amqp_channel.declare_queue(name, durable=True, arguments=arguments)
    except ConnectionLostError as error:
        if error.reply_code == PRECONDITION_FAILED:
            return str(error)
        if error.reply_code == ACCESS_REFUSED:
            raise NotPermittedError(str(error)) from error
        raise
    return None


async def _exchange_problem(session: AmqpSession, exchange: Exchange) -> str | None:
    try:
        async with session.question_channel() as amqp_channel:
            await amqp_channel.declare_exchange(exchange.value, passive=True)
    except ConnectionLostError as error:
        if error.reply_code == NOT_FOUND:
            return "missing"
        if error.reply_code == PRECONDITION_FAILED:
            return str(error)
        raise
    return None


def _different_range_counts(
    policy: RangePolicy, work: Mapping[Queue, InspectedQueue], outgrown: Collection[Exchange]
) -> dict[Exchange, int | None]:
    different: dict[Exchange, int | None] = {}
    for exchange, count in policy.counts.items():
        missing = {
            queue.range_number for queue, found in work.items() if queue.exchange is exchange and not found.state
        }
        shown = shown_range_count(set(range(count)) - missing, count)
        if exchange in outgrown:
            different[exchange] = None
        elif shown != count:
            different[exchange] = shown
    return different


def shown_range_count(present: Set[int], count: int) -> int:
    """Returns the range count below `count` that queues show, or `count` if they show none.

    Args:
        present: the numbers of the ranges that have all their queues.
        count: a power of two.
    """
    return next((shown for shown in RANGE_COUNTS if shown < count and present == set(range(shown))), count)


async def may_own_reply_queue(session: AmqpSession) -> bool:
    """Returns whether the user may have a gateway's reply queue: exclusive and named by the broker.

    The queue exists until the session ends.

    Raises:
        ConnectionLostError: the connection broke.
    """
    try:
        async with session.question_channel() as amqp_channel:
            queue = (await amqp_channel.declare_queue("", exclusive=True)).queue or ""
            # To consume needs the right to read.
            await amqp_channel.consume(queue, lambda *_: None)
    except ConnectionLostError as error:
        if error.reply_code == ACCESS_REFUSED:
            return False
        raise
    return True


class PublishRight(StrEnum):
    """What the broker does with a publish to an exchange."""

    CONFIRMED = "confirmed"
    REFUSED = "refused"
    NO_EXCHANGE = "no exchange"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class PublishReport:
    """The result of a publish probe.

    Attributes:
        rights: for each exchange; `UNKNOWN` if the broker blocked the connection first.
        blocked: whether the broker blocks publishes: a memory or disk alarm.
    """

    rights: Mapping[Exchange, PublishRight]
    blocked: bool


async def probe_publishing(session: AmqpSession) -> PublishReport:
    """Publishes an empty, non-mandatory message to each exchange, and waits for the confirms.

    Args:
        session: one for the probe alone. During an alarm the broker does not read from a connection that has published.

    Raises:
        ConnectionLostError: the connection broke.
    """
    rights = dict.fromkeys(Exchange, PublishRight.UNKNOWN)
    blocked = asyncio.Event()
    session.on_blocked(lambda now: blocked.set() if now else blocked.clear())

    async def ask() -> None:
        for exchange in Exchange:
            rights[exchange] = await _publish_right(session, exchange)
        # A blocked connection leaves this unanswered: the last confirm may come before connection.blocked.
        await (await session.open_channel()).close()

    blocking, asking = asyncio.create_task(blocked.wait()), asyncio.create_task(ask())
    try:
        await asyncio.wait({blocking, asking}, return_when=asyncio.FIRST_COMPLETED)
        if asking.done():
            asking.result()
        return PublishReport(rights, session.blocked)
    finally:
        blocking.cancel()
        asking.cancel()
        await asyncio.gather(blocking, asking, return_exceptions=True)


async def _publish_right(session: AmqpSession, exchange: Exchange) -> PublishRight:
    # The broker closes the channel when it refuses a publish.
    amqp_channel = await session.open_channel()
    confirmed: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    def publish(callback: Callable[..., None]) -> None:
        confirmed.add_done_callback(callback)
        amqp_channel.raw.basic_publish(exchange.value, PROBE_ROUTING_KEY, b"", mandatory=False)

    try:
        await amqp_channel.call(
            lambda callback: amqp_channel.raw.confirm_delivery(confirmed.set_result, callback=callback)
        )
        await amqp_channel.call(publish)
    except ConnectionLostError as error:
        if error.reply_code == ACCESS_REFUSED:
            return PublishRight.REFUSED
        if error.reply_code == NOT_FOUND:
            return PublishRight.NO_EXCHANGE
        raise
    await amqp_channel.close()
    return PublishRight.CONFIRMED
