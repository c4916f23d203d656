"""A channel for questions that the broker may answer by closing it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from provgate_broker.session import AmqpChannel, AmqpSession


class QuestionChannel:
    """Asks one question after the other over one channel, and over another one once the broker has closed that.

    A passive declaration of what is not there, or one that is refused, ends its channel and nothing else.

    Args:
        session: on which the channels are opened.
    """

    def __init__(self, session: AmqpSession) -> None:
        self._session = session
        self._amqp_channel: AmqpChannel | None = None

    async def call(self, start: Callable[[Any, Callable[..., None]], object]) -> Any:
        """Starts a method of pika's channel that takes a callback, and waits for what the callback is given.

        Raises:
            ConnectionLostError: the broker closed the channel instead, with the reply code that says why; or the
                connection is lost.
        """
        if self._amqp_channel is None or self._amqp_channel.lost.done():
            self._amqp_channel = await self._session.open_channel()
        raw = self._amqp_channel.raw
        return await self._amqp_channel.call(lambda callback: start(raw, callback))

    async def close(self) -> None:
        """Closes the channel that is open."""
        if self._amqp_channel is not None:
            await self._amqp_channel.close()


@asynccontextmanager
async def questions(session: AmqpSession) -> AsyncIterator[QuestionChannel]:
    """Gives a channel for questions, and closes it at the end.

    Not where it is cancelled: whoever ends the session closes the channel with it, and waits once for a broker that
    does not answer.
    """
    asked = QuestionChannel(session)
    try:
        yield asked
    except Exception:
        await asked.close()
        raise
    else:
        await asked.close()
