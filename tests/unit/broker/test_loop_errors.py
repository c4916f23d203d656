"""What the event loop logs of errors in callbacks."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

import pytest
from pika import tcp_socket_opts
from pika.callback import CallbackManager

from provgate_broker.amqp.pika_workarounds import log_network_errors_briefly


def logged(caplog: pytest.LogCaptureFixture, callback: Callable[[], object]) -> logging.LogRecord:
    """Returns the record of a callback that raises. pika logs those that it calls itself before."""

    async def run() -> None:
        log_network_errors_briefly()
        asyncio.get_running_loop().call_soon(callback)
        # Callbacks are run in their order.
        await asyncio.sleep(0)

    asyncio.run(run())
    (record,) = [record for record in caplog.records if not record.name.startswith("pika")]
    return record


def fail(*_: object) -> None:
    raise OSError("no space left on device")


def test_a_socket_that_breaks_in_pikas_hands_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    closed = socket.socket()
    closed.close()
    record = logged(caplog, lambda: tcp_socket_opts.set_sock_opts({"TCP_KEEPIDLE": 1}, closed))
    assert (record.levelname, record.exc_info) == ("WARNING", None)
    assert record.getMessage() == "a connection broke while it was made: [Errno 9] Bad file descriptor"


@pytest.mark.parametrize("error", [OSError("no space left on device"), RuntimeError("a fault")])
def test_any_other_error_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    def fail() -> None:
        raise error

    record = logged(caplog, fail)
    assert (record.levelname, bool(record.exc_info)) == ("ERROR", True)
    assert str(error) in caplog.text


def test_one_of_a_callback_that_pika_calls_too(caplog: pytest.LogCaptureFixture) -> None:
    callbacks = CallbackManager()
    callbacks.add(0, "key", fail)
    record = logged(caplog, lambda: callbacks.process(0, "key", "caller"))
    assert (record.levelname, bool(record.exc_info)) == ("ERROR", True)
