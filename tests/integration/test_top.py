"""`provgate top` with a stack under load, on a terminal and for scripts."""

from __future__ import annotations

import codecs
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_stack.processes.process import free_ports
from provgate_stack.processes.programs import program_path
from provgate_stack.stack import Stack
from tests.support.gateway_calls import contents, write
from tests.support.polling import eventually
from tests.support.watch_port import probe, value


@contextmanager
def load(stack: Stack) -> Iterator[None]:
    """Writes without a pause."""
    over = threading.Event()

    def run() -> None:
        with grpc.insecure_channel(stack.address) as channel:
            stub = ProvenanceStorageStub(channel)
            while not over.is_set():
                assert write(stub.ContentAdd, [contents(500) for _ in range(20)]).ok

    writing = threading.Thread(target=run)
    writing.start()
    try:
        metrics = stack.gateways[0].metrics_address
        eventually(lambda: value(metrics, "provgate_gateway_entries_acked_total") > 0, "entries are acked")
        yield
    finally:
        over.set()
        writing.join()


def command(stack: Stack, *arguments: str) -> list[str]:
    gateway, workers = stack.metrics_addresses()
    return [program_path("provgate"), "top", "--gateway", gateway, "--workers", workers, *arguments]


def once(stack: Stack, *arguments: str, of: list[str] | None = None, cwd: Path | None = None) -> dict[str, Any]:
    environment = stack.client_environment()
    if cwd is not None:
        # Or it would name the configuration.
        del environment["PROVGATE_CONFIG"]
    done = subprocess.run(
        [*(of or command(stack)), "--once", "--format", "json", "--interval", "1", *arguments],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_for_scripts_under_load(shared_stack: Stack) -> None:
    with load(shared_stack):
        found = once(shared_stack)
    assert 1 <= found["interval_s"] < 20
    assert [program["problem"] for program in found["programs"]] == [None, None]
    assert found["programs"][0]["connections"] == {"publisher": 1, "replies": 1}
    assert found["programs"][1]["connections"] == {"deliveries": 2, "replies": 2}
    rates = found["rates"]
    assert all(rates[name] > 0 for name in ("received", "confirmed", "acked", "committed"))
    # What is acked was received, and no more of it than may be on its way between.
    assert rates["acked"] <= rates["received"] + found["unacked_entries"]["bound"]
    for latency in found["latencies"].values():
        assert 0 < latency["p50_s"] <= latency["p99_s"] < 60
    assert 0 <= found["unacked_entries"]["used"] <= found["unacked_entries"]["bound"] == 2_000_000
    assert len(found["ranges"]) == 10
    assert all(len(of_operation["depths"]) == 16 for of_operation in found["ranges"])
    assert not found["blocked"]


def test_at_rest_and_beside_a_program_that_does_not_answer(shared_stack: Stack) -> None:
    found = once(shared_stack, "--workers", "127.0.0.1:1")
    assert set(found["rates"].values()) == {0}
    assert all(latency["p50_s"] is None for latency in found["latencies"].values())
    assert [program["problem"] is None for program in found["programs"]] == [True, True, False]
    assert "refused" in found["programs"][2]["problem"]


def test_the_configured_programs_are_scraped(shared_stack: Stack, tmp_path: Path) -> None:
    gateway, _ = shared_stack.metrics_addresses()
    sections = {"gateway": {"metrics_listen": gateway}, "rabbitmq": {"metrics_listen": "off"}}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"provenance": sections}))
    found = once(shared_stack, "--config", str(config), of=[program_path("provgate"), "top"])
    assert [(program["role"], program["address"]) for program in found["programs"]] == [("gateway", gateway)]


def test_the_stack_that_is_up_is_found(shared_stack: Stack, tmp_path: Path) -> None:
    profile = shared_stack.write_profile()
    up, below = tmp_path / ".stack" / "up", tmp_path / "docs"
    for directory in (up.parent, up, below):
        directory.mkdir(mode=0o700)
    profile.rename(up / profile.name)
    found = once(shared_stack, of=[program_path("provgate"), "top"], cwd=below)
    assert [program["address"] for program in found["programs"]] == shared_stack.metrics_addresses()
    assert [program["problem"] for program in found["programs"]] == [None, None]


class Terminal:
    """A command on a pseudo-terminal of 120 columns and 50 lines. A thread reads its output at once."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self._main, end = pty.openpty()
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
        # Under pytest-xdist the program would otherwise draw for 80 columns and 25 lines.
        environment = environment | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "50"}
        self.process = subprocess.Popen(
            arguments, env=environment, stdin=end, stdout=end, stderr=end, start_new_session=True
        )
        os.close(end)
        self.text = ""
        # A program blocks, also at its end, while nobody reads its terminal.
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def shows(self, part: str) -> bool:
        """Returns whether a text was drawn by now."""
        return part in self.text

    def press_ctrl_c(self) -> int:
        """Returns the exit code; afterwards `text` is complete."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(20)
        self._reading.join(20)
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reading.join(20)
        os.close(self._main)

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        # The terminal of a program that has ended gives an error.
        with suppress(OSError):
            while drawn := os.read(self._main, 65536):
                self.text += decoder.decode(drawn)


@pytest.fixture
def terminal(shared_stack: Stack) -> Iterator[Terminal]:
    made = Terminal(command(shared_stack, "--interval", "0.5"), shared_stack.client_environment())
    yield made
    made.close()


def test_on_a_terminal_it_draws_until_ctrl_c(shared_stack: Stack, terminal: Terminal) -> None:
    eventually(lambda: probe(shared_stack.gateways[0].metrics_address, "/readyz").ok, "the queues were inspected")
    with load(shared_stack):
        for part in ("publish to ack", "content_in_directory", "unacked entries", " ms"):
            try:
                eventually(lambda part=part: terminal.shows(part), f"it draws {part!r}")  # type: ignore[misc]  # mypy does not infer it
            except AssertionError as error:
                error.add_note(terminal.text[-4000:])
                raise
    assert terminal.press_ctrl_c() == 0
    # The screen is as it was before.
    assert terminal.shows("\x1b[?1049l")
    assert "Traceback" not in terminal.text


def test_it_fails_if_no_program_answers(shared_stack: Stack) -> None:
    (free,) = free_ports(1)
    nowhere = f"127.0.0.1:{free}"
    arguments = ["--once", "--interval", "0.1", "--gateway", nowhere, "--workers", nowhere]
    environment = shared_stack.client_environment()
    done = subprocess.run(
        [program_path("provgate"), "top", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "does not answer" in done.stdout
    assert "Error: no program answers" in done.stderr
