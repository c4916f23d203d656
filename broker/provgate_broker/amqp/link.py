"""A connection that reconnects: each time it is lost, another one is made, with backoff."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from provgate_broker.amqp.connection import AmqpParameters, AmqpSession, open_session
from provgate_broker.errors import ConnectionLostError
from provgate_runtime.outage import Outage

logger = logging.getLogger(__name__)

_BACKOFF_FIRST_S: Final = 0.2
_BACKOFF_MAX_S: Final = 10.0

# After a session of this length the backoff starts anew.
_SETTLED_AFTER_S: Final = 15.0

# A session is logged as the end of an outage when it has lasted this long. The broker may accept a connection and end
# it at once, for example if a right is missing.
_HELD_AFTER_S: Final = 1.0


def retry_with_backoff(
    *errors: type[Exception], first_s: float = _BACKOFF_FIRST_S, max_s: float = _BACKOFF_MAX_S
) -> AsyncRetrying:
    """Returns what repeats a coroutine function until it raises none of `errors`: the loop of every connect and retry.

    Waits are random, between 0 and a bound that starts at `first_s` and doubles up to `max_s` (full jitter), so that
    programs do not reconnect all at once.
    """
    return AsyncRetrying(
        retry=retry_if_exception_type(errors), wait=wait_random_exponential(multiplier=first_s, max=max_s)
    )


class AmqpLink:
    """Keeps one connection to the broker.

    Args:
        parameters: the address of the broker.
        name: the name of the connection at the broker and in the log.
        serve: uses a session until it is lost, and then raises `ConnectionLostError`. Called for each session.
    """

    def __init__(self, parameters: AmqpParameters, name: str, serve: Callable[[AmqpSession], Awaitable[None]]) -> None:
        self._parameters = parameters
        self._name = name
        self._serve = serve
        self._outage = Outage(logger, action="broker.connect")
        self._fields = {"connection": name, "address": parameters.address}

    async def run(self) -> None:
        """Connects, serves, and repeats both with backoff, until it is cancelled.

        Any error except `ConnectionLostError` ends it.
        """
        while True:
            await retry_with_backoff(ConnectionLostError)(self._connect_and_serve)
            # A settled session was lost. All links of all programs come here at once when a broker restarts.
            await asyncio.sleep(random.uniform(0, _BACKOFF_FIRST_S))

    async def _connect_and_serve(self) -> None:
        """Serves one session. Returns if it was settled when it was lost, else raises `ConnectionLostError`."""
        address = self._parameters.address
        try:
            session = await open_session(self._parameters, self._name)
        except ConnectionLostError as error:
            self._outage.failed(f"{self._name}: no connection to {address}", error, **self._fields)
            raise
        loop = asyncio.get_running_loop()
        opened_at_s = loop.time()
        fields = self._fields | {"peer": session.peer}
        text = f"{self._name}: connected to {address} at {session.peer}"
        if not self._outage.goes_on:
            logger.info("%s", text, extra={"action": "broker.connect", "state": "working", **fields})
        held = loop.call_later(_HELD_AFTER_S, lambda: self._outage.ended(f"{text} again", **fields))
        try:
            await self._serve(session)
        except ConnectionLostError as error:
            self._outage.failed(f"{self._name}: connection to {session.peer} lost", error, **fields)
            if loop.time() - opened_at_s < _SETTLED_AFTER_S:
                raise
        finally:
            held.cancel()
            await asyncio.shield(session.close())
