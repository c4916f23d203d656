"""What is on the broker, compared with what should be: nothing is made, changed or taken.

| asked | how | right that it takes |
|---|---|---|
| whether a queue or an exchange is there, and how full it is | a passive declaration | none |
| whether it has the arguments that it should have | a declaration like set-up's, of what is there | configure |
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pika.exchange_type import ExchangeType

from provgate_broker.amqp.connection import (
    ACCESS_REFUSED,
    NOT_FOUND,
    PRECONDITION_FAILED,
    AmqpChannel,
    AmqpSession,
    QuestionChannel,
    questions,
)
from provgate_broker.errors import ConnectionLostError
from provgate_broker.settings import RabbitMqSettings
from provgate_broker.topology.declaration import (
    DEAD_LETTER_QUEUE,
    QUARANTINE_QUEUE,
    QueueState,
    queue_arguments,
    queue_state,
)
from provgate_broker.topology.policy import RANGE_COUNTS, Exchange, Queue, RangePolicy, binding_key, operations_of

PROBE_ROUTING_KEY: Final = "provgate.probe"
"""No queue is bound to it, so that the broker drops what comes with it, and confirms it all the same."""


class PublishRight(StrEnum):
    """What the broker does with a publish to an exchange."""

    CONFIRMED = "confirmed"
    REFUSED = "refused"
    NO_EXCHANGE = "no exchange"
    NOT_TOLD = "not told"


@dataclass(frozen=True, slots=True)
class PublishReport:
    """What a probe found.

    Attributes:
        rights: of each exchange; `NOT_TOLD` where the broker blocks publishes before it was asked.
        blocked: whether the broker blocks publishes: a memory or disk alarm.
    """

    rights: Mapping[Exchange, PublishRight]
    blocked: bool


async def probe_publishing(session: AmqpSession, exchanges: tuple[Exchange, ...] = tuple(Exchange)) -> PublishReport:
    """Publishes an empty, non-mandatory message to exchanges, and waits for its confirm.

    Args:
        session: one on which nothing else is asked: while an alarm lasts, the broker reads no more from a connection
            that has published.
        exchanges: which.

    Raises:
        ConnectionLostError: the connection broke.
    """
    rights = dict.fromkeys(exchanges, PublishRight.NOT_TOLD)
    blocked = asyncio.Event()
    session.on_blocked(lambda now: blocked.set() if now else blocked.clear())
    blocking = asyncio.create_task(blocked.wait())
    asking = asyncio.create_task(_ask(session, rights))
    try:
        await asyncio.wait({blocking, asking}, return_when=asyncio.FIRST_COMPLETED)
        if asking.done():
            asking.result()
        return PublishReport(rights, session.blocked)
    finally:
        for task in (blocking, asking):
            task.cancel()
        await asyncio.gather(blocking, asking, return_exceptions=True)


async def may_own_reply_queue(session: AmqpSession) -> bool:
    """Returns whether the user may have a queue for replies as a gateway has one, exclusive and named by the broker.

    The queue is gone with the session.

    Raises:
        ConnectionLostError: the connection broke.
    """
    async with questions(session) as asked:
        try:
            declared = await asked.call(lambda raw, callback: raw.queue_declare("", exclusive=True, callback=callback))
            # It takes the right to read.
            await asked.call(
                lambda raw, callback: raw.basic_consume(
                    declared.method.queue, lambda *_: None, auto_ack=True, callback=callback
                )
            )
        except ConnectionLostError as error:
            if error.reply_code == ACCESS_REFUSED:
                return False
            raise
    return True


async def _ask(session: AmqpSession, rights: dict[Exchange, PublishRight]) -> None:
    for exchange in rights:
        rights[exchange] = await _right(session, exchange)
    # A question that a blocked connection leaves unanswered: the last confirm may come before the word of the alarm.
    await (await session.open_channel()).close()


async def _right(session: AmqpSession, exchange: Exchange) -> PublishRight:
    # A refusal ends its channel.
    amqp_channel = await session.open_channel()
    try:
        await _publish(amqp_channel, exchange)
    except ConnectionLostError as error:
        if error.reply_code == ACCESS_REFUSED:
            return PublishRight.REFUSED
        if error.reply_code == NOT_FOUND:
            return PublishRight.NO_EXCHANGE
        raise
    await amqp_channel.close()
    return PublishRight.CONFIRMED


async def _publish(amqp_channel: AmqpChannel, exchange: Exchange) -> None:
    confirmed: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    def start(answer: Callable[..., None]) -> None:
        confirmed.add_done_callback(answer)
        amqp_channel.raw.basic_publish(exchange.value, PROBE_ROUTING_KEY, b"", mandatory=False)

    await amqp_channel.call(lambda callback: amqp_channel.raw.confirm_delivery(confirmed.set_result, callback=callback))
    await amqp_channel.call(start)


@dataclass(frozen=True, slots=True)
class InspectedQueue:
    """A queue that should be there.

    Attributes:
        name: the queue's.
        state: None where it is missing.
        difference: what the broker says of arguments that are not those of set-up; None where none is known.
    """

    name: str
    state: QueueState | None
    difference: str | None = None


@dataclass(frozen=True, slots=True)
class TopologyReport:
    """What an inspection found.

    Attributes:
        work: the work queues.
        aside: the dead-letter and the quarantine queue; none behind another deployment's broker.
        exchanges: of each exchange that is not as it should be, what is wrong with it.
        range_counts: how many ranges the broker's queues show, of each exchange where that is not the configured
            count; None where they show more than that.
        compared: whether arguments were compared; else the user may not configure, or differences were known.
    """

    work: Mapping[Queue, InspectedQueue]
    aside: Mapping[str, InspectedQueue]
    exchanges: Mapping[Exchange, str]
    range_counts: Mapping[Exchange, int | None]
    compared: bool

    @property
    def missing(self) -> list[str]:
        """The names of the queues that are not there."""
        return [queue.name for queue in self._all() if queue.state is None]

    @property
    def different(self) -> dict[str, str]:
        """What differs, by the names of the queues."""
        return {queue.name: queue.difference for queue in self._all() if queue.difference is not None}

    @property
    def unconsumed(self) -> list[str]:
        """The names of the work queues that are there and that nobody consumes."""
        return [
            queue.name for queue in self.work.values() if queue.state is not None and not queue.state.consumer_count
        ]

    def _all(self) -> Iterator[InspectedQueue]:
        yield from self.work.values()
        yield from self.aside.values()


async def inspect_topology(
    session: AmqpSession,
    policy: RangePolicy,
    settings: RabbitMqSettings,
    *,
    differences: Mapping[str, str] | None = None,
    outgrown: Collection[Exchange] | None = None,
) -> TopologyReport:
    """Inspects exchanges and queues, one after the other.

    Args:
        session: on which it is asked; a session that has published does not answer while the broker blocks it.
        policy: the range counts.
        settings: what the queues should be. Behind another deployment's broker (`topology: existing`) arguments are not
            compared, and there are no queues aside.
        differences: those of queues by their names, where the caller knows them from an earlier inspection; None
            compares the arguments. Each difference, and a refusal, is a line in the broker's log.
        outgrown: the exchanges that have more ranges than the policy, where the caller knows; None asks, as
            `outgrown_exchanges` does.

    Raises:
        ConnectionLostError: the connection broke.
    """
    own = settings.topology == "own"
    async with questions(session) as asked:
        inspector = _Inspector(asked, session.broker_version, settings, {} if not own else differences)
        work = {queue: await inspector.queue(queue.name) for queue in policy.queues()}
        names = (DEAD_LETTER_QUEUE, QUARANTINE_QUEUE) if own else ()
        aside = {name: await inspector.queue(name, single_active_consumer=False) for name in names}
        exchanges = {exchange: await inspector.exchange(exchange) for exchange in Exchange}
        more = await _outgrown(asked, policy) if outgrown is None else outgrown
        return TopologyReport(
            work,
            aside,
            {exchange: fault for exchange, fault in exchanges.items() if fault is not None},
            _differing_range_counts(policy, work, more),
            inspector.compares,
        )


async def outgrown_exchanges(session: AmqpSession, policy: RangePolicy) -> frozenset[Exchange]:
    """Returns the exchanges that have queues of more ranges than the policy.

    It asks for queues that should not be there, each of which is a line in the broker's log: not to be asked often.

    Raises:
        ConnectionLostError: the connection broke.
    """
    async with questions(session) as asked:
        return await _outgrown(asked, policy)


def shown_range_count(present: frozenset[int], count: int) -> int:
    """Returns how many ranges queues show that are those of fewer ranges than `count`; `count` where they are not.

    Args:
        present: the numbers of the ranges that have all their queues.
        count: a power of two.
    """
    fewer = (shown for shown in RANGE_COUNTS if shown < count and present == frozenset(range(shown)))
    return next(fewer, count)


class _Inspector:
    """Asks for single exchanges and queues.

    Args:
        asked: where it asks.
        broker_version: of the broker.
        settings: what the queues should be.
        differences: those that are known; None compares.

    Attributes:
        compares: whether arguments are compared, which ends where the user may not declare.
    """

    def __init__(
        self,
        asked: QuestionChannel,
        broker_version: tuple[int, ...],
        settings: RabbitMqSettings,
        differences: Mapping[str, str] | None,
    ) -> None:
        self.compares = differences is None
        self._known = differences or {}
        self._asked = asked
        self._arguments = {
            single: queue_arguments(settings, broker_version, single_active_consumer=single) for single in (True, False)
        }

    async def queue(self, name: str, *, single_active_consumer: bool = True) -> InspectedQueue:
        state = await queue_state(self._asked, name)
        # A queue that is not there would be made.
        if state is None:
            return InspectedQueue(name, None)
        if not self.compares:
            return InspectedQueue(name, state, self._known.get(name))
        arguments = self._arguments[single_active_consumer]
        return InspectedQueue(name, state, await self._difference(name, arguments))

    async def exchange(self, exchange: Exchange) -> str | None:
        try:
            await self._asked.call(
                lambda raw, callback: raw.exchange_declare(
                    exchange.value, ExchangeType.direct, passive=True, callback=callback
                )
            )
        except ConnectionLostError as error:
            if error.reply_code == NOT_FOUND:
                return "missing"
            if error.reply_code == PRECONDITION_FAILED:
                return str(error)
            raise
        return None

    async def _difference(self, name: str, arguments: Mapping[str, Any]) -> str | None:
        try:
            await self._asked.call(
                lambda raw, callback: raw.queue_declare(
                    name, durable=True, arguments=dict(arguments), callback=callback
                )
            )
        except ConnectionLostError as error:
            if error.reply_code == PRECONDITION_FAILED:
                return str(error)
            if error.reply_code == ACCESS_REFUSED:
                self.compares = False
                return None
            raise
        return None


async def _outgrown(asked: QuestionChannel, policy: RangePolicy) -> frozenset[Exchange]:
    return frozenset([exchange for exchange in Exchange if await _has_queue_beyond(asked, exchange, policy)])


async def _has_queue_beyond(asked: QuestionChannel, exchange: Exchange, policy: RangePolicy) -> bool:
    for operation in operations_of(exchange):
        if await queue_state(asked, binding_key(operation, policy.counts[exchange])) is not None:
            return True
    return False


def _differing_range_counts(
    policy: RangePolicy, work: Mapping[Queue, InspectedQueue], outgrown: Collection[Exchange]
) -> dict[Exchange, int | None]:
    shown = {
        exchange: None if exchange in outgrown else shown_range_count(_present_ranges(exchange, work), count)
        for exchange, count in policy.counts.items()
    }
    return {exchange: count for exchange, count in shown.items() if count != policy.counts[exchange]}


def _present_ranges(exchange: Exchange, work: Mapping[Queue, InspectedQueue]) -> frozenset[int]:
    of_exchange = {queue: found for queue, found in work.items() if queue.exchange is exchange}
    missing = {queue.range_number for queue, found in of_exchange.items() if found.state is None}
    return frozenset({queue.range_number for queue in of_exchange} - missing)
