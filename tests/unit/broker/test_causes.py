from __future__ import annotations

from pika.adapters.utils.connection_workflow import (
    AMQPConnectionWorkflowFailed,
    AMQPConnectorAMQPHandshakeError,
    AMQPConnectorSocketConnectError,
)
from pika.exceptions import AMQPConnectionError, ConnectionClosedByBroker, ProbableAuthenticationError

from provgate_broker.amqp.connection import lost_error


def test_what_pika_wraps_is_told_by_its_cause() -> None:
    refused = AMQPConnectorSocketConnectError(OSError(111, "Connection refused"))
    wrapped = AMQPConnectionError(AMQPConnectionWorkflowFailed([refused]))
    assert str(lost_error(wrapped)) == "[Errno 111] Connection refused"


def test_the_broker_s_reply_code_is_kept() -> None:
    closed = AMQPConnectorAMQPHandshakeError(ConnectionClosedByBroker(530, "NOT_ALLOWED"))
    error = lost_error(AMQPConnectionWorkflowFailed([closed]))
    assert (str(error), error.reply_code) == ("NOT_ALLOWED", 530)


def test_a_wrong_password_is_told_by_the_broker_s_answer() -> None:
    answered = repr(ConnectionClosedByBroker(403, "ACCESS_REFUSED - it's wrong"))
    error = lost_error(AMQPConnectorAMQPHandshakeError(ProbableAuthenticationError(answered)))
    assert (str(error), error.reply_code) == ("ACCESS_REFUSED - it's wrong", 403)
    hung_up = lost_error(ProbableAuthenticationError("StreamLostError: ('Transport indicated EOF',)"))
    assert hung_up.reply_code is None


def test_an_error_without_a_text_is_told_by_its_name() -> None:
    assert str(lost_error(AMQPConnectionError())) == "AMQPConnectionError"
