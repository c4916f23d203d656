"""What gateway and workers say of their health while something is broken, and while their watch port is flooded."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Final

import psutil
import pytest

from provgate_stack.servers.postgresql import PostgreSqlCluster
from tests.faults.footprint import MIB, Footprint
from tests.faults.outages import away_by_link_or_stopped, broker_away
from tests.faults.system import NOTICED_S, RECOVERED_S, System
from tests.support.broker import alarm
from tests.support.gateway_calls import OpenWrite, connected, contents, write
from tests.support.link import Link
from tests.support.polling import eventually
from tests.support.watch_port import expect, probe, value

logger = logging.getLogger(__name__)

pytestmark = pytest.mark.faults

# Twice what docs/metrics.md says for an event loop and for a process.
SILENT_MAX_S: Final = 30.0

CONNECTIONS: Final = 300
# The limit of a request is 10 s; each byte comes sooner.
CUT_S: Final = 30.0
HEALTH_S: Final = 5.0

# As much as Python's HTTP server takes: 5.7 MB in lines that are just not too long.
HEADERS: Final = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 65_000) for number in range(88))
LARGE_REQUESTS: Final = 100
GROWTH_MAX_BYTES: Final = 30 * MIB


@pytest.fixture(scope="module")
def started_system(shared_system: System) -> System:
    """A system whose worker program and gateway run."""
    shared_system.start()
    return shared_system


@pytest.fixture
def running(started_system: System) -> System:
    """The same, once both programs are ready again after the test before."""
    for program in (started_system.gateway, started_system.workers):
        wait_ready(program.metrics_address)
    return started_system


def wait_ready(address: str) -> None:
    eventually(lambda: probe(address, "/readyz").ok, "the program is ready", RECOVERED_S)


def problem(address: str, condition: str, path: str = "/readyz") -> str | None:
    return probe(address, path).problems[condition]


def wait_problem(address: str, condition: str, path: str = "/readyz", timeout_s: float = NOTICED_S) -> None:
    eventually(lambda: problem(address, condition, path) is not None, f"{condition} is named", timeout_s)


@away_by_link_or_stopped
def test_a_broker_that_is_out_of_reach_is_named_until_it_is_back(
    linked_system: tuple[System, Link], stopped: bool
) -> None:
    system, link = linked_system
    system.start()
    gateway, workers = system.gateway.metrics_address, system.workers.metrics_address
    wait_ready(gateway)
    with broker_away(system, link, stopped=stopped):
        wait_problem(gateway, "broker")
        wait_problem(workers, "broker")
        assert problem(gateway, "storage") is None
        assert probe(gateway, "/healthz").ok
        assert probe(workers, "/healthz").ok
    wait_ready(gateway)
    wait_ready(workers)


def test_a_broker_that_blocks_publishers_is_named(running: System) -> None:
    gateway = running.gateway.metrics_address
    with alarm(running.node, "memory"), connected(running.stack.address) as (_, stub):
        # The broker tells a connection that it is blocked once something is published on it.
        write(stub.ContentAdd, [contents(5)], timeout_s=1.0)
        eventually(lambda: "blocks publishers" in str(problem(gateway, "blocked")), "it is named", NOTICED_S)
        assert problem(gateway, "broker") is None
        assert value(gateway, "provgate_gateway_broker_blocked") == 1
        assert value(gateway, "provgate_gateway_broker_connected", connection="publisher") == 1
    wait_ready(gateway)
    assert value(gateway, "provgate_gateway_broker_blocked") == 0


def test_what_is_published_again_is_counted_and_acked_once(running: System) -> None:
    gateway = running.gateway.metrics_address
    states = ("received", "published", "confirmed", "acked")
    before = {
        state: value(gateway, f"provgate_gateway_entries_{state}_total", method="content_add") for state in states
    }
    with connected(running.stack.address) as (_, stub):
        eventually(lambda: value(gateway, "provgate_gateway_unacked_entries") == 0, "nothing is in flight")
        running.workers.stop()
        try:
            opened = OpenWrite(stub, timeout_s=RECOVERED_S)
            opened.send(contents(100))
            expect(gateway, before["confirmed"] + 100, "provgate_gateway_entries_confirmed_total", method="content_add")
            assert value(gateway, "provgate_gateway_unacked_entries") == 100
            running.node.ctl("close_all_connections", "--global", "a test")
            republications = "provgate_gateway_republications_total"
            eventually(lambda: value(gateway, republications, exchange="content") > 0, "they are published again")
        finally:
            running.workers.cont()
        assert opened.end().ok
    for state in states:
        expect(gateway, before[state] + 100, f"provgate_gateway_entries_{state}_total", method="content_add")
    assert value(gateway, "provgate_gateway_unacked_entries") == 0


def test_a_database_that_is_out_of_reach_is_named(running: System, postgres_cluster: PostgreSqlCluster) -> None:
    gateway = running.gateway.metrics_address
    postgres_cluster.stop()
    try:
        wait_problem(gateway, "storage")
        assert problem(gateway, "broker") is None
    finally:
        postgres_cluster.start()
    wait_ready(gateway)


def test_a_process_that_was_killed_is_named_until_the_next_is_ready(running: System) -> None:
    address = running.workers.metrics_address
    for child in psutil.Process(running.workers.pid).children():
        child.kill()
    eventually(lambda: not probe(address, "/readyz").ok, "it is named")
    wait_ready(address)


def test_a_suspended_process_and_an_event_loop_that_a_full_pipe_holds_up_are_named_as_not_alive(
    running: System,
) -> None:
    # In one test: each takes as long as a process, or an event loop, may be silent.
    workers = running.workers.metrics_address
    child = psutil.Process(running.workers.pid).children()[0]
    gateway = running.stack.start_gateway()
    gateway.terminate()
    child.suspend()
    with full_pipe() as (reader, writer):
        program = subprocess.Popen(gateway.command, env=gateway.environment, stderr=writer, cwd="/")
        try:
            # It stops at the first line that it logs, as a program does whose log nobody reads.
            eventually(lambda: answers(gateway.metrics_address), "it is alive, or not", RECOVERED_S)
            wait_problem(gateway.metrics_address, "event_loop", "/healthz", SILENT_MAX_S)
            # What it logs from here on fits into the pipe.
            fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 1024 * 1024)
            os.read(reader, 4096)
            eventually(lambda: probe(gateway.metrics_address, "/healthz").ok, "it is alive again", RECOVERED_S)
            eventually(lambda: not probe(workers, "/healthz").ok, "the process is named", SILENT_MAX_S)
            silent = [name for name, text in probe(workers, "/healthz").problems.items() if text]
            assert silent in (["process_0_reports"], ["process_1_reports"])
        finally:
            child.resume()
            program.kill()
            program.wait()
    eventually(lambda: probe(workers, "/healthz").ok, "the process is alive again", RECOVERED_S)


@contextmanager
def full_pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    try:
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        os.write(writer, b"." * 4096)
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


def answers(address: str) -> bool:
    try:
        probe(address, "/healthz")
    except OSError:
        return False
    return True


def opened_connection(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.setblocking(False)
    return connection


def is_cut(connection: socket.socket, piece: bytes) -> bool:
    """Sends a piece and returns whether the port has ended the connection."""
    try:
        connection.send(piece)
        return connection.recv(4096) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def answered_in_s(address: str) -> float:
    asked_at = time.monotonic()
    assert probe(address, "/healthz").ok
    return time.monotonic() - asked_at


def test_requests_that_come_byte_by_byte_are_cut_and_health_answers_meanwhile(running: System) -> None:
    gateway = running.gateway
    with ExitStack() as stack:
        before = Footprint.of(gateway.pid)
        rest = [stack.enter_context(closing(opened_connection(gateway.metrics_address))) for _ in range(CONNECTIONS)]
        for connection in rest:
            connection.send(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
        answers_s = [answered_in_s(gateway.metrics_address)]
        most_threads = Footprint.of(gateway.pid).thread_count
        give_up_at = time.monotonic() + CUT_S
        while rest and time.monotonic() < give_up_at:
            time.sleep(0.5)
            rest = [connection for connection in rest if not is_cut(connection, b"x")]
            answers_s.append(answered_in_s(gateway.metrics_address))
        after = Footprint.of(gateway.pid)
    figures = f"{CONNECTIONS - len(rest)} of {CONNECTIONS} cut in {CUT_S:g} s; health within {max(answers_s):.2f} s"
    figures += f"; {before}; then {most_threads} threads; {after}"
    logger.info(figures)
    assert not rest, figures
    assert max(answers_s) < HEALTH_S, figures
    assert most_threads <= before.thread_count + 40, figures


def test_headers_without_end_take_no_memory_and_health_answers_meanwhile(running: System) -> None:
    gateway = running.gateway
    before = Footprint.of(gateway.pid)
    with ExitStack() as stack:
        for _ in range(LARGE_REQUESTS):
            connection = stack.enter_context(closing(opened_connection(gateway.metrics_address)))
            connection.settimeout(5)
            # Without the empty line that ends them: the server holds them while it waits for that line.
            with suppress(OSError):
                connection.sendall(b"GET /healthz HTTP/1.1\r\n" + HEADERS)
        took_s = answered_in_s(gateway.metrics_address)
        during = Footprint.of(gateway.pid)
    figures = f"{before}; during {during}; health within {took_s:.2f} s"
    logger.info(figures)
    assert during.memory_bytes - before.memory_bytes < GROWTH_MAX_BYTES, figures
    assert took_s < HEALTH_S, figures
    assert value(gateway.metrics_address, "provgate_gateway_broker_blocked") == 0
