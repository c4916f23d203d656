"""A connection that is kept: made again whenever it is lost."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from provgate_broker.errors import ConnectionLostError
from provgate_broker.session import AmqpParameters, AmqpSession, open_session

logger = logging.getLogger(__name__)

_BACKOFF_FIRST_S: Final = 0.2
_BACKOFF_MAX_S: Final = 10.0

# A session that held for so long ends a row of failures: the next one starts with the shortest wait.
_SETTLED_AFTER_S: Final = 15.0


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

    async def _serve_one(self) -> None:
        session = await open_session(self._parameters, self._name)
        opened_at = time.monotonic()
        logger.info("%s: connected to %s", self._name, self._parameters.address)
        try:
            await self._serve(session)
        except ConnectionLostError as error:
            if time.monotonic() - opened_at < _SETTLED_AFTER_S:
                raise
            logger.warning("%s: connection lost: %s", self._name, error)
            await asyncio.sleep(0)
        finally:
            await asyncio.shield(session.close())

    def _log(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait_s = state.next_action.sleep if state.next_action else 0.0
        logger.warning(
            "%s: no connection to %s: %s; again in %.1f s", self._name, self._parameters.address, error, wait_s
        )
