"""Headers that pika cannot decode, errors that it wraps, and errors in its callbacks."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import frame, spec, tcp_socket_opts
from pika.adapters.utils.connection_workflow import (
    AMQPConnectionWorkflowFailed,
    AMQPConnectorAMQPHandshakeError,
    AMQPConnectorSocketConnectError,
)
from pika.callback import CallbackManager
from pika.exceptions import AMQPConnectionError, ConnectionClosedByBroker, ProbableAuthenticationError
from pika.spec import BasicProperties

from provgate_broker.amqp.connection import lost_error
from provgate_broker.amqp.pika_workarounds import LenientProperties, log_network_errors_briefly


def encoded(table: bytes) -> bytes:
    """Returns properties with a content type, a header table as given, and a correlation id."""
    flags = BasicProperties.FLAG_CONTENT_TYPE | BasicProperties.FLAG_HEADERS | BasicProperties.FLAG_CORRELATION_ID
    return struct.pack(">H", flags) + b"\x04type" + struct.pack(">I", len(table)) + table + b"\x02id"


def nested(depth: int) -> bytes:
    table = b""
    for _ in range(depth):
        table = b"\x01aF" + struct.pack(">I", len(table)) + table
    return table


UNDECODABLE = {
    "a timestamp that is too late": b"\x01tT" + b"\xff" * 8,
    "not a number": b"\x01td" + struct.pack(">d", float("nan")),
    "infinity": b"\x01tf" + struct.pack(">f", float("inf")),
    "an unknown type": b"\x01t?",
    "too deep": nested(3000),
}


@pytest.mark.parametrize("table", UNDECODABLE.values(), ids=UNDECODABLE.keys())
def test_undecodable_headers_are_dropped_and_other_properties_stay(table: bytes) -> None:
    with pytest.raises(Exception):  # noqa: B017  # of several types
        BasicProperties().decode(encoded(table))
    properties = LenientProperties()
    properties.decode(encoded(table))
    assert (properties.content_type, properties.headers, properties.correlation_id) == ("type", {}, "id")


def test_other_headers_are_decoded() -> None:
    properties = LenientProperties()
    properties.decode(encoded(b"\x01tt\x01"))
    assert properties.headers == {"t": True}


@given(st.binary(max_size=60))
def test_any_table_is_decoded_or_dropped(table: bytes) -> None:
    properties = LenientProperties()
    properties.decode(encoded(table))
    assert isinstance(properties.headers, dict)


def test_pika_decodes_received_messages_with_it() -> None:
    header = frame.Header(1, 5, BasicProperties(content_type="type"))
    _, decoded = frame.decode_frame(header.marshal())
    assert isinstance(decoded, frame.Header)
    assert isinstance(decoded.properties, LenientProperties)
    assert spec.props[BasicProperties.INDEX] is LenientProperties


def handshake_error(error: Exception) -> Exception:
    return AMQPConnectionWorkflowFailed([AMQPConnectorAMQPHandshakeError(error)])


@pytest.mark.parametrize(
    ("reason", "text", "reply_code"),
    [
        (
            AMQPConnectionError(
                AMQPConnectionWorkflowFailed([AMQPConnectorSocketConnectError(OSError(111, "Connection refused"))])
            ),
            "[Errno 111] Connection refused",
            None,
        ),
        (handshake_error(ConnectionClosedByBroker(530, "NOT_ALLOWED")), "NOT_ALLOWED", 530),
        (
            handshake_error(
                ProbableAuthenticationError(repr(ConnectionClosedByBroker(403, "ACCESS_REFUSED - it's wrong")))
            ),
            "ACCESS_REFUSED - it's wrong",
            403,
        ),
        (
            ProbableAuthenticationError("StreamLostError: ('Transport indicated EOF',)"),
            "StreamLostError: ('Transport indicated EOF',)",
            None,
        ),
        (AMQPConnectionError(), "AMQPConnectionError", None),
    ],
    ids=["a socket", "the broker", "a wrong password", "no answer to a password", "no text"],
)
def test_an_error_of_pika_is_reported_by_its_cause(reason: Exception, text: str, reply_code: int | None) -> None:
    error = lost_error(reason)
    assert (str(error), error.reply_code) == (text, reply_code)


def logged(caplog: pytest.LogCaptureFixture, callback: Callable[[], object]) -> logging.LogRecord:
    """Returns the record of a callback that raises, without what pika logs itself before."""

    async def run() -> None:
        log_network_errors_briefly()
        asyncio.get_running_loop().call_soon(callback)
        # The loop runs callbacks in their order.
        await asyncio.sleep(0)

    asyncio.run(run())
    (record,) = [record for record in caplog.records if not record.name.startswith("pika")]
    return record


def test_a_socket_that_breaks_in_pika_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    closed = socket.socket()
    closed.close()
    record = logged(caplog, lambda: tcp_socket_opts.set_sock_opts({"TCP_KEEPIDLE": 1}, closed))
    assert (record.levelname, record.exc_info) == ("WARNING", None)
    assert record.getMessage() == "a connection broke while it was made: [Errno 9] Bad file descriptor"


@pytest.mark.parametrize("error", [OSError("no space left on device"), RuntimeError("a fault")])
@pytest.mark.parametrize("through_pika", [False, True])
def test_any_other_error_has_its_traceback(
    caplog: pytest.LogCaptureFixture, error: Exception, through_pika: bool
) -> None:
    def fail(*_: object) -> None:
        raise error

    callbacks = CallbackManager()
    callbacks.add(0, "key", fail)
    record = logged(caplog, (lambda: callbacks.process(0, "key", "caller")) if through_pika else fail)
    assert (record.levelname, bool(record.exc_info)) == ("ERROR", True)
    assert str(error) in caplog.text
