"""Network errors that pika lets through to the event loop."""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import Any, Final

logger = logging.getLogger(__name__)

# What works on a socket in pika's hands: pika, and what it calls.
_NETWORK_MODULES: Final = frozenset({"pika", "socket", "ssl"})


def tell_network_errors_shortly() -> None:
    """Has the running loop log a network error that pika raises in a callback as one line, and others with tracebacks.

    A connection that is reset in the moment in which pika takes its socket over raises out of a callback of pika's,
    where nobody can catch it. Nothing is lost: pika's own time limit ends the attempt, and the link makes another.
    """
    asyncio.get_running_loop().set_exception_handler(_tell)


def _tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if isinstance(error, OSError) and _is_of_pikas_socket(error):
        logger.warning(
            "a connection broke while it was made: %s", error, extra={"action": "broker.socket", "reason": str(error)}
        )
    else:
        loop.default_exception_handler(context)


def _is_of_pikas_socket(error: OSError) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    packages = [str(frame.f_globals.get("__name__", "")).partition(".")[0] for frame, _ in frames]
    # Not one of a callback that pika calls: its last frame is the callback's.
    return "pika" in packages and packages[-1] in _NETWORK_MODULES
