"""A connection that is kept: made again whenever it is lost."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from provgate_broker.amqp.connection import AmqpParameters, AmqpSession, open_session
from provgate_broker.errors import ConnectionLostError
from provgate_runtime.outage import Outage

logger = logging.getLogger(__name__)

_BACKOFF_FIRST_S: Final = 0.2
_BACKOFF_MAX_S: Final = 10.0

# A session that held for so long ends a row of failures: the next one starts with the shortest wait.
_SETTLED_AFTER_S: Final = 15.0

# After a failure a session is told once it held for so long. One that the broker ends at once, for want of a right say,
# is no end of the failures.
_HELD_AFTER_S: Final = 1.0


class AmqpLink:
    """Keeps one connection to the broker.

    Args:
        parameters: where the broker is.
        name: what the broker shows for the connection, and the log too.
        serve: what is done with each session, until it is lost. It ends by raising `ConnectionLostError`.
    """

    def __init__(self, parameters: AmqpParameters, name: str, serve: Callable[[AmqpSession], Awaitable[None]]) -> None:
        self._parameters = parameters
        self._name = name
        self._serve = serve
        self._outage = Outage(logger, action="broker.connect")

    async def run(self) -> None:
        """Connects, serves, and does both again with backoff and jitter, until it is cancelled.

        Any error but `ConnectionLostError` ends it.
        """
        while True:
            retrying = AsyncRetrying(
                retry=retry_if_exception_type(ConnectionLostError),
                wait=wait_random_exponential(multiplier=_BACKOFF_FIRST_S, max=_BACKOFF_MAX_S),
                before_sleep=self._log,
            )
            await retrying(self._serve_one)
            # It held until now. All links of all programs come here at once when a broker restarts.
            await asyncio.sleep(random.uniform(0, _BACKOFF_FIRST_S))

    async def _serve_one(self) -> None:
        session = await self._open()
        loop = asyncio.get_running_loop()
        opened_at = loop.time()
        telling = self._tell_opened(session)
        try:
            await self._serve(session)
        except ConnectionLostError as error:
            fields = self._fields | {"peer": session.peer}
            self._outage.failed(f"{self._name}: connection to {session.peer} lost", error, **fields)
            if loop.time() - opened_at < _SETTLED_AFTER_S:
                raise
        finally:
            telling.cancel()
            await asyncio.shield(session.close())

    async def _open(self) -> AmqpSession:
        try:
            return await open_session(self._parameters, self._name)
        except ConnectionLostError as error:
            self._outage.failed(f"{self._name}: no connection to {self._parameters.address}", error, **self._fields)
            raise

    def _tell_opened(self, session: AmqpSession) -> asyncio.TimerHandle:
        fields = self._fields | {"peer": session.peer}
        text = f"{self._name}: connected to {self._parameters.address} at {session.peer}"
        if not self._outage.goes_on:
            logger.info("%s", text, extra={"action": "broker.connect", "state": "working", **fields})
        return asyncio.get_running_loop().call_later(
            _HELD_AFTER_S, lambda: self._outage.ended(f"{text} again", **fields)
        )

    @property
    def _fields(self) -> dict[str, str]:
        return {"connection": self._name, "address": self._parameters.address}

    def _log(self, state: RetryCallState) -> None:
        wait_s = state.next_action.sleep if state.next_action else 0.0
        extra = {"action": "broker.connect", "wait_s": wait_s, **self._fields}
        logger.debug("%s: the next try is in %.1f s", self._name, wait_s, extra=extra)
