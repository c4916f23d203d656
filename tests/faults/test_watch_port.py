"""What gateway and workers say of their health while something is broken."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from provgate_stack.servers.postgresql import PostgreSqlCluster
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack
from tests.support.broker import alarm
from tests.support.gateway_calls import OpenWrite, connected, contents, write
from tests.support.polling import eventually
from tests.support.watch_port import expect, probe, value

pytestmark = pytest.mark.faults

RECOVERED_S = 60.0
# Longer than an event loop, or a process, may be silent.
NOTICED_S = 30.0


def test_a_broker_that_is_out_of_reach_is_named_until_it_is_back(
    small_stack: Stack, rabbitmq_node: RabbitMqNode
) -> None:
    small_stack.start()
    gateway, workers = small_stack.metrics_addresses()
    rabbitmq_node.stop()
    try:
        eventually(lambda: problem(gateway, "broker") is not None, "the gateway says so", RECOVERED_S)
        eventually(lambda: problem(workers, "broker") is not None, "the workers say so", RECOVERED_S)
        assert problem(gateway, "storage") is None
        assert probe(gateway, "/healthz").ok
        assert probe(workers, "/healthz").ok
    finally:
        rabbitmq_node.start()
    eventually(lambda: probe(gateway, "/readyz").ok and probe(workers, "/readyz").ok, "both are ready", RECOVERED_S)


def test_a_broker_that_blocks_publishers_is_named(small_stack: Stack, rabbitmq_node: RabbitMqNode) -> None:
    small_stack.start()
    gateway, _ = small_stack.metrics_addresses()
    eventually(lambda: probe(gateway, "/readyz").ok, "it is ready")
    with alarm(rabbitmq_node, "memory"), connected(small_stack.address) as (_, stub):
        # The broker says that it blocks a connection once something is published on it.
        write(stub.ContentAdd, [contents(5)], timeout_s=1.0)
        eventually(lambda: "blocks publishers" in str(problem(gateway, "blocked")), "it says so")
        assert problem(gateway, "broker") is None
        assert value(gateway, "provgate_gateway_broker_blocked") == 1
        assert value(gateway, "provgate_gateway_broker_connected", connection="publisher") == 1
    eventually(lambda: probe(gateway, "/readyz").ok, "it is ready again")
    assert value(gateway, "provgate_gateway_broker_blocked") == 0


def test_what_is_published_again_is_counted_and_acked_once(small_stack: Stack, rabbitmq_node: RabbitMqNode) -> None:
    small_stack.start()
    gateway, _ = small_stack.metrics_addresses()
    with connected(small_stack.address) as (_, stub):
        small_stack.workers[0].stop()
        opened = OpenWrite(stub, timeout_s=RECOVERED_S)
        opened.send(contents(100))
        expect(gateway, 100, "provgate_gateway_entries_confirmed_total", method="content_add")
        assert value(gateway, "provgate_gateway_unacked_entries") == 100
        rabbitmq_node.ctl("close_all_connections", "--global", "a test")
        eventually(lambda: value(gateway, "provgate_gateway_republications_total", exchange="content") > 0, "again")
        small_stack.workers[0].cont()
        assert opened.end().ok
    for state in ("received", "published", "confirmed", "acked"):
        expect(gateway, 100, f"provgate_gateway_entries_{state}_total", method="content_add")
    assert value(gateway, "provgate_gateway_unacked_entries") == 0


def test_a_database_that_is_out_of_reach_is_named(small_stack: Stack, postgres_cluster: PostgreSqlCluster) -> None:
    small_stack.start()
    gateway, _ = small_stack.metrics_addresses()
    eventually(lambda: probe(gateway, "/readyz").ok, "it is ready")
    postgres_cluster.stop()
    try:
        eventually(lambda: problem(gateway, "storage") is not None, "it says so", RECOVERED_S)
        assert problem(gateway, "broker") is None
    finally:
        postgres_cluster.start()
    eventually(lambda: probe(gateway, "/readyz").ok, "it is ready again", RECOVERED_S)


def test_a_process_that_was_killed_is_named_until_the_next_is_ready(small_stack: Stack) -> None:
    program = small_stack.start_workers()
    for child in psutil.Process(program.pid).children():
        child.kill()
    eventually(lambda: not probe(program.metrics_address, "/readyz").ok, "it is named")
    eventually(lambda: probe(program.metrics_address, "/readyz").ok, "the next is ready", RECOVERED_S)


def test_a_process_that_is_suspended_is_named_as_not_alive(small_stack: Stack) -> None:
    program = small_stack.start_workers()
    child = psutil.Process(program.pid).children()[0]
    child.suspend()
    try:
        eventually(lambda: not probe(program.metrics_address, "/healthz").ok, "it is named", NOTICED_S)
        silent = [name for name, text in probe(program.metrics_address, "/healthz").problems.items() if text]
        assert silent in (["process_0_reports"], ["process_1_reports"])
    finally:
        child.resume()
    eventually(lambda: probe(program.metrics_address, "/healthz").ok, "it is alive again")


def test_an_event_loop_that_a_full_pipe_holds_up_is_named(small_stack: Stack) -> None:
    small_stack.start_workers()
    small_stack.start_gateway().terminate()
    gateway = small_stack.gateways[0]
    with full_pipe() as (reader, writer):
        program = subprocess.Popen(gateway.command, env=gateway.environment, stderr=writer, cwd="/")
        try:
            # What it logs first stops it, as the log of a program does whose reader hangs.
            eventually(lambda: says(gateway.metrics_address), "it is alive, or not")
            eventually(
                lambda: problem(gateway.metrics_address, "event_loop", "/healthz") is not None, "named", NOTICED_S
            )
            read_all(reader)
            eventually(lambda: probe(gateway.metrics_address, "/healthz").ok, "it is alive again")
        finally:
            program.kill()
            program.wait()


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


def read_all(reader: int) -> None:
    # It goes on to log: what it writes fits now.
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 1024 * 1024)
    os.read(reader, 4096)


def says(address: str) -> bool:
    try:
        probe(address, "/healthz")
    except OSError:
        return False
    return True


def problem(address: str, condition: str, path: str = "/readyz") -> str | None:
    return probe(address, path).problems[condition]
