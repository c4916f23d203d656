"""Whether packages could be published: asked by publishing one that goes nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from provgate_broker.errors import ConnectionLostError
from provgate_broker.question_channel import questions
from provgate_broker.session import ACCESS_REFUSED, NOT_FOUND, AmqpChannel, AmqpSession
from provgate_broker.topology import Exchange

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
