"""Network errors that pika lets through to the event loop."""

from __future__ import annotations

import asyncio
import logging
import re
import struct
import traceback
from typing import Any, Final

from pika import spec
from pika.adapters.utils.connection_workflow import AMQPConnectionWorkflowFailed, AMQPConnectorPhaseErrorBase
from pika.exceptions import (
    AMQPConnectionError,
    AMQPError,
    ConnectionClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)
from pika.spec import BasicProperties

logger = logging.getLogger(__name__)

# Properties of messages whose headers pika cannot decode.
#
# RabbitMQ delivers headers that pika's decoder raises at: a timestamp that no `datetime` can hold, tables in tables
# without end. pika answers by dropping the connection, and the message comes back with the next one: a single
# message would keep a process from all of its queues. Such headers are read as none.

_UNDECODABLE: Final = (AMQPError, ValueError, OverflowError, OSError, RecursionError, struct.error)
_FLAG_WORD_BYTES: Final = 2
_NO_HEADERS: Final = b"\x00\x00\x00\x00"


class LenientProperties(BasicProperties):
    """`BasicProperties` that lose their headers where these cannot be decoded."""

    def decode(self, encoded: bytes, offset: int = 0) -> Any:
        """Decodes properties, as pika calls it for each message that comes in."""
        try:
            return super().decode(encoded, offset)
        except _UNDECODABLE:
            return super().decode(_without_headers(encoded[offset:]), 0)


def use_lenient_properties() -> None:
    """Has all connections of this process decode properties so. pika looks the class up for each message."""
    spec.props[BasicProperties.INDEX] = LenientProperties


def _without_headers(encoded: bytes) -> bytes:
    """Returns encoded properties with an empty table for headers (AMQP 0-9-1, 4.2.6.1)."""
    (flags,) = struct.unpack_from(">H", encoded)
    start = _FLAG_WORD_BYTES
    for flag in (BasicProperties.FLAG_CONTENT_TYPE, BasicProperties.FLAG_CONTENT_ENCODING):
        if flags & flag:
            start += 1 + encoded[start]
    (table_bytes,) = struct.unpack_from(">I", encoded, start)
    return encoded[:start] + _NO_HEADERS + encoded[start + len(_NO_HEADERS) + table_bytes :]


# What pika keeps of the broker's answer to a wrong password or virtual host: its own error, as a text.
_ANSWER: Final = re.compile(r"ConnectionClosedByBroker: \((\d+)\) (['\"])(.*)\2", re.DOTALL)


def cause_of(reason: BaseException) -> BaseException:
    """Returns the error at the bottom of pika's own: of the socket, of TLS, of the broker; else `reason` itself.

    pika wraps it up to three times, and the texts of the wrappings are their names.
    """
    inner = _within(reason)
    return reason if inner is None else cause_of(inner)


def _within(reason: BaseException) -> BaseException | None:
    if isinstance(reason, AMQPConnectionWorkflowFailed) and reason.exceptions:
        return reason.exceptions[-1]
    if isinstance(reason, AMQPConnectorPhaseErrorBase):
        return reason.exception
    if isinstance(reason, ProbableAuthenticationError | ProbableAccessDeniedError):
        answer = _ANSWER.fullmatch(str(reason))
        return ConnectionClosedByBroker(int(answer[1]), answer[3]) if answer else None
    if type(reason) is AMQPConnectionError and reason.args and isinstance(reason.args[0], BaseException):
        return reason.args[0]
    return None


# What works on a socket in pika's hands: pika, and what it calls.
_NETWORK_MODULES: Final = frozenset({"pika", "socket", "ssl"})


def log_network_errors_briefly() -> None:
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
