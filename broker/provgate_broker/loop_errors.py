"""Network errors that pika lets through to the event loop."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

logger = logging.getLogger(__name__)


def tell_network_errors_shortly() -> None:
    """Has the running loop log a network error in a callback as one line, and every other error as ever.

    A connection that is reset in the moment in which pika takes its socket over raises out of a callback of pika's,
    where nobody can catch it. Nothing is lost: pika's own time limit ends the attempt, and the link makes another.
    """
    asyncio.get_running_loop().set_exception_handler(_tell)


def _tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if isinstance(error, OSError):
        logger.warning(
            "a connection broke while it was made: %s", error, extra={"action": "broker.socket", "reason": str(error)}
        )
    else:
        loop.default_exception_handler(context)
