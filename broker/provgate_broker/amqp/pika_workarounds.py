"""Works around pika: headers that it cannot decode, wrapped errors, and errors that reach the event loop."""

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

_UNDECODABLE: Final = (AMQPError, ValueError, OverflowError, OSError, RecursionError, struct.error)
_FLAG_WORD_BYTES: Final = 2
_NO_HEADERS: Final = b"\x00\x00\x00\x00"


class LenientProperties(BasicProperties):
    """`BasicProperties` without headers if pika cannot decode the headers.

    RabbitMQ delivers headers that pika's decoder rejects, such as a timestamp beyond `datetime` or deeply nested
    tables. pika then drops the connection, and the broker delivers the message again on the next one: one message would
    keep a process from all its queues.
    """

    def decode(self, encoded: bytes, offset: int = 0) -> Any:
        """Decodes properties. pika calls it for each message that it receives."""
        try:
            return super().decode(encoded, offset)
        except _UNDECODABLE:
            return super().decode(_without_headers(encoded[offset:]), 0)


def use_lenient_properties() -> None:
    """Makes every connection of this process use `LenientProperties`. pika looks the class up for each message."""
    spec.props[BasicProperties.INDEX] = LenientProperties


def _without_headers(encoded: bytes) -> bytes:
    """Returns encoded properties with an empty header table (AMQP 0-9-1, 4.2.6.1)."""
    (flags,) = struct.unpack_from(">H", encoded)
    start = _FLAG_WORD_BYTES
    for flag in (BasicProperties.FLAG_CONTENT_TYPE, BasicProperties.FLAG_CONTENT_ENCODING):
        if flags & flag:
            start += 1 + encoded[start]
    (table_bytes,) = struct.unpack_from(">I", encoded, start)
    return encoded[:start] + _NO_HEADERS + encoded[start + len(_NO_HEADERS) + table_bytes :]


# pika keeps the broker's answer to a wrong password or virtual host as the text of its own error.
_ANSWER: Final = re.compile(r"ConnectionClosedByBroker: \((\d+)\) (['\"])(.*)\2", re.DOTALL)


def cause_of(reason: BaseException) -> BaseException:
    """Returns the innermost error of one that pika raises: the socket's, TLS's or the broker's; else `reason`.

    pika wraps an error up to three times, and the texts of the wrappers are only their names.
    """
    inner: BaseException | None = None
    if isinstance(reason, AMQPConnectionWorkflowFailed) and reason.exceptions:
        inner = reason.exceptions[-1]
    elif isinstance(reason, AMQPConnectorPhaseErrorBase):
        inner = reason.exception
    elif isinstance(reason, ProbableAuthenticationError | ProbableAccessDeniedError):
        if answer := _ANSWER.fullmatch(str(reason)):
            inner = ConnectionClosedByBroker(int(answer[1]), answer[3])
    elif type(reason) is AMQPConnectionError and reason.args and isinstance(reason.args[0], BaseException):
        inner = reason.args[0]
    return reason if inner is None else cause_of(inner)


# The packages that work on pika's sockets.
_NETWORK_MODULES: Final = frozenset({"pika", "socket", "ssl"})


def log_network_errors_briefly() -> None:
    """Makes the running loop log a network error out of pika's callbacks as one line, without a traceback.

    If a connection is reset in the moment in which pika takes its socket over, the error leaves a callback of pika's,
    and no caller can catch it. Nothing is lost: pika's time limit ends the attempt, and the link makes another one.
    """
    asyncio.get_running_loop().set_exception_handler(_log_loop_error)


def _log_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
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
    # The last frame of an error in a callback that pika calls is the callback's.
    return "pika" in packages and packages[-1] in _NETWORK_MODULES
