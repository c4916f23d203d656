"""What went wrong, of what pika says of a connection that could not be made."""

from __future__ import annotations

import re
from typing import Final

from pika.adapters.utils.connection_workflow import AMQPConnectionWorkflowFailed, AMQPConnectorPhaseErrorBase
from pika.exceptions import (
    AMQPConnectionError,
    ConnectionClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

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
