"""Requests that never end, or have no end of headers, at the port for those who watch a program."""

from __future__ import annotations

import logging
import socket
import time
from contextlib import ExitStack, closing, suppress

import pytest

from provgate_stack.processes.programs import GatewayProgram
from provgate_stack.stack import Stack
from tests.faults.footprint import MIB, Footprint
from tests.support.polling import eventually
from tests.support.watch_port import probe, value

logger = logging.getLogger(__name__)

pytestmark = pytest.mark.faults

CONNECTIONS = 300
# The limit of a request is 10 s, each byte comes sooner.
CUT_S = 30.0
HEALTH_S = 5.0

# As much as Python's HTTP server takes: 5.7 MB in lines that are just not too long.
HEADERS = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 65_000) for number in range(88))
LARGE_REQUESTS = 100
GROWTH_MAX_BYTES = 30 * MIB


@pytest.fixture
def gateway(small_stack: Stack) -> GatewayProgram:
    small_stack.start()
    program = small_stack.gateways[0]
    eventually(lambda: probe(program.metrics_address, "/readyz").ok, "it is ready")
    return program


def _opened(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.setblocking(False)
    return connection


def _is_cut(connection: socket.socket, piece: bytes) -> bool:
    """Sends a piece and returns whether the port has ended the connection."""
    try:
        connection.send(piece)
        return connection.recv(4096) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _answered_in_s(address: str) -> float:
    asked_at = time.monotonic()
    assert probe(address, "/healthz").ok
    return time.monotonic() - asked_at


def test_requests_that_come_byte_by_byte_are_cut_and_health_answers_meanwhile(gateway: GatewayProgram) -> None:
    with ExitStack() as stack:
        before = Footprint.of(gateway.pid)
        rest = [stack.enter_context(closing(_opened(gateway.metrics_address))) for _ in range(CONNECTIONS)]
        for connection in rest:
            connection.send(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
        answers_s = [_answered_in_s(gateway.metrics_address)]
        most_threads = Footprint.of(gateway.pid).thread_count
        give_up_at = time.monotonic() + CUT_S
        while rest and time.monotonic() < give_up_at:
            time.sleep(0.5)
            rest = [connection for connection in rest if not _is_cut(connection, b"x")]
            answers_s.append(_answered_in_s(gateway.metrics_address))
        after = Footprint.of(gateway.pid)
    figures = f"{CONNECTIONS - len(rest)} of {CONNECTIONS} cut in {CUT_S:g} s; health within {max(answers_s):.2f} s"
    figures += f"; {before}; then {most_threads} threads; {after}"
    logger.info(figures)
    assert not rest, figures
    assert max(answers_s) < HEALTH_S, figures
    assert most_threads <= before.thread_count + 40, figures


def test_headers_without_end_take_no_memory_and_health_answers_meanwhile(gateway: GatewayProgram) -> None:
    before = Footprint.of(gateway.pid)
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(_opened(gateway.metrics_address))) for _ in range(LARGE_REQUESTS)]
        for connection in connections:
            connection.settimeout(5)
            # Without the empty line that ends them: the server holds them for as long as it waits for it.
            with suppress(OSError):
                connection.sendall(b"GET /healthz HTTP/1.1\r\n" + HEADERS)
        answered_s = _answered_in_s(gateway.metrics_address)
        during = Footprint.of(gateway.pid)
    figures = f"{before}; during {during}; health within {answered_s:.2f} s"
    logger.info(figures)
    assert during.memory_bytes - before.memory_bytes < GROWTH_MAX_BYTES, figures
    assert answered_s < HEALTH_S, figures
    assert value(gateway.metrics_address, "provgate_gateway_broker_blocked") == 0
