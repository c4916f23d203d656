"""What gateway and workers say of their health on their watch port, and where they open it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from provgate_stack.processes.directory import StackDirectory
from provgate_stack.processes.process import ChildProgram
from provgate_stack.processes.programs import program_path
from provgate_stack.stack import Stack
from tests.support.polling import eventually
from tests.support.programs import config_with, failed_start, run_workers
from tests.support.watch_port import probe


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def test_both_are_alive_and_ready(shared_stack: Stack) -> None:
    gateway, workers = shared_stack.metrics_addresses()
    assert probe(gateway, "/healthz").ok
    assert probe(workers, "/healthz").ok
    eventually(lambda: probe(gateway, "/readyz").ok, "the gateway is ready")
    eventually(lambda: probe(workers, "/readyz").ok, "the workers are ready")
    assert set(probe(gateway, "/readyz").problems) >= {
        *("stopping", "ranges", "broker", "blocked", "storage"),
        *("topology", "consumers", "certificate"),
    }
    assert set(probe(workers, "/readyz").problems) == {
        "stopping",
        "preparation",
        "process_0",
        "process_1",
        "broker",
        "storage",
    }


def test_programs_say_why_they_wait_at_their_start(stack_directory: StackDirectory) -> None:
    nowhere = {"cls": "postgresql", "db": {"host": "127.0.0.1", "port": 1, "dbname": "nowhere"}}
    stack = Stack("amqp://guest:guest@127.0.0.1:1/%2f", nowhere, stack_directory, name="stack-nowhere")
    programs = [stack.start_gateway(wait=False), stack.start_workers(wait=False)]
    try:
        _expect_waiting(programs[0].metrics_address, "broker")
        _expect_waiting(programs[1].metrics_address, "preparation")
        assert [program.terminate() for program in programs] == [0, 0]
    finally:
        stack.kill()


def test_a_gateway_that_was_told_to_stop_says_so(stack: Stack) -> None:
    gateway = stack.gateways[0]
    eventually(lambda: probe(gateway.metrics_address, "/readyz").ok, "it is ready")
    assert gateway.terminate() == 0
    assert not _listens(gateway.metrics_address)


def test_a_port_that_was_asked_for_and_is_taken_ends_the_program(
    bare_stack: Stack, tmp_path: Path, taken_port: int
) -> None:
    where = f"127.0.0.1:{taken_port}"
    code, log = failed_start(bare_stack, metrics_listen=where)
    assert code == 1
    assert f"provenance.gateway.metrics_listen: {where} cannot be served on: " in log
    ended = run_workers(config_with(bare_stack, tmp_path, metrics_listen=where), "run")
    assert ended.returncode == 1
    assert f"provenance.rabbitmq.metrics_listen: {where} cannot be served on: " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_default_port_that_is_taken_is_done_without(stack: Stack, tmp_path: Path) -> None:
    config = config_with(stack, tmp_path, metrics_listen=None)
    programs = [
        ChildProgram([program_path("provgate-workers"), "run", "--config", str(config)], {}, tmp_path / f"{name}.log")
        for name in ("first", "second")
    ]
    try:
        for program in programs:
            program.start()
        eventually(
            lambda: (
                "the program goes on without" in programs[1].log_path.read_text()
                or "the program goes on without" in programs[0].log_path.read_text()
            ),
            "one says so",
            20,
        )
        assert [program.terminate() for program in programs] == [0, 0]
    finally:
        for program in programs:
            program.kill()


def test_no_port_is_opened_where_the_settings_say_off(bare_stack: Stack) -> None:
    workers = bare_stack.start_workers(metrics_listen="off")
    gateway = bare_stack.start_gateway(metrics_listen="off")
    for program in (workers, gateway):
        listening = [each.laddr.port for each in psutil.Process(program.pid).net_connections("tcp") if not each.raddr]
        assert len(listening) == (1 if program is gateway else 0)


def _expect_waiting(address: str, condition: str) -> None:
    eventually(lambda: _listens(address), "the port is open", 20)
    eventually(lambda: "refused" in str(probe(address, "/readyz").problems[condition]), "it says why", 20)
    assert not probe(address, "/readyz").ok
    assert probe(address, "/healthz").ok


def _listens(address: str) -> bool:
    host, _, port = address.partition(":")
    with socket.socket() as asking:
        return asking.connect_ex((host, int(port))) == 0
