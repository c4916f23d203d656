"""Child programs, and free ports for them."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import psutil
import pytest

from provgate_stack.errors import StackError, StartError
from provgate_stack.processes.leftovers import wait_gone
from provgate_stack.processes.process import LOOPBACK, ChildProgram, free_port, free_ports


def child(script: str, log_path: Path) -> ChildProgram:
    return ChildProgram(["sh", "-c", script], {"PATH": "/usr/bin:/bin"}, log_path)


def ready_child(script: str, log_path: Path) -> ChildProgram:
    program = child(f"{script}; echo ready; while :; do sleep 0.01; done", log_path)
    program.start()
    program.wait_until(lambda: b"ready" in log_path.read_bytes(), timeout_s=10)
    return program


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return tmp_path / "program.log"


def test_exit_code_is_returned(log_path: Path) -> None:
    program = ready_child("trap 'exit 7' TERM", log_path)
    assert program.alive
    assert program.terminate() == 7
    assert not program.alive


def test_program_that_ignores_the_request_is_killed_and_reported(log_path: Path) -> None:
    program = ready_child("trap '' TERM", log_path)
    with pytest.raises(StackError, match="did not end"):
        program.terminate(timeout_s=0.1)
    assert not program.alive


def test_early_end_is_reported_with_the_log(log_path: Path) -> None:
    program = child("echo no such luck; exit 3", log_path)
    program.start()
    with pytest.raises(StartError, match=r"ended with 3(.|\n)*no such luck"):
        program.wait_until(lambda: False, timeout_s=10)


def test_lateness_is_reported(log_path: Path) -> None:
    program = child("sleep 60", log_path)
    program.start()
    with pytest.raises(StartError, match="not ready"):
        program.wait_until(lambda: False, timeout_s=0.05)
    program.kill()


def test_kill_reaches_descendants_in_sessions_of_their_own(log_path: Path) -> None:
    program = child("setsid sleep 60 & wait", log_path)
    program.start()
    sleepers: list[psutil.Process] = []

    def started() -> bool:
        children = psutil.Process(program.pid).children(recursive=True)
        sleepers[:] = [process for process in children if process.name() == "sleep"]
        return bool(sleepers)

    program.wait_until(started, timeout_s=10)
    program.kill()
    wait_gone(sleepers, timeout_s=5)
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in sleepers)
    program.kill()


def test_stopped_program_can_be_terminated(log_path: Path) -> None:
    # No shell: one that waits for its vfork cannot be stopped.
    program = ChildProgram(["sleep", "60"], {"PATH": "/usr/bin:/bin"}, log_path)
    program.start()
    program.stop()
    program.wait_until(lambda: psutil.Process(program.pid).status() == psutil.STATUS_STOPPED, timeout_s=10)
    assert program.terminate() == -signal.SIGTERM


def test_program_can_be_started_again_but_not_twice(log_path: Path) -> None:
    program = child("echo once; sleep 60", log_path)
    program.start()
    with pytest.raises(StackError, match="runs already"):
        program.start()
    program.kill()
    program.start()
    program.wait_until(lambda: program.alive, timeout_s=1)
    program.kill()


def test_completion_waits_for_the_work(log_path: Path) -> None:
    done = child("sleep 0.1; echo done", log_path)
    started = time.monotonic()
    done.start()
    done.complete(timeout_s=10)
    assert time.monotonic() - started >= 0.1
    failed = child("exit 4", log_path)
    failed.start()
    with pytest.raises(StartError, match="ended with 4"):
        failed.complete(timeout_s=10)


def test_program_that_was_never_started_has_no_pid(log_path: Path) -> None:
    program = child("true", log_path)
    assert not program.alive
    program.kill()
    with pytest.raises(StackError, match="not started"):
        _ = program.pid


def test_ports_differ_are_free_and_are_not_those_of_clients() -> None:
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert all(port < 32_768 for port in ports)
    for port in ports[:5]:
        with socket.socket() as server:
            server.bind((LOOPBACK, port))


def test_preferred_port_is_used_if_it_is_free() -> None:
    (preferred,) = free_ports(1)
    assert free_port(preferred) == preferred
    with socket.socket() as server:
        server.bind((LOOPBACK, preferred))
        server.listen()
        assert free_port(preferred) != preferred
