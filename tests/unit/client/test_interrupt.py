"""Ctrl-C ends every command within seconds, in processes of their own."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from provgate_client.cli.add import BATCH_ENTRIES
from provgate_client.cli.connection import closed_at_interrupt
from provgate_client.storage import ProvenanceStorageGrpc
from tests.support.gateway_double import ENDLESS, GatewayDouble
from tests.unit.client.conftest import make_ids

TIMEOUT_S = 60


def start(*arguments: str) -> subprocess.Popen[str]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *arguments], text=True, **pipes)  # type: ignore[call-overload,no-any-return]


def provgate(gateway: GatewayDouble, *arguments: str) -> subprocess.Popen[str]:
    return start("-m", "provgate_client.cli", "--url", gateway.address, *arguments)


def interrupted(process: subprocess.Popen[str]) -> list[str]:
    """Presses Ctrl-C; returns the lines on standard error once the process has ended as it should."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(TIMEOUT_S)
    finally:
        process.kill()
    _, stderr = process.communicate()
    assert process.returncode == 130, stderr
    return stderr.splitlines()


def test_a_read_ends_and_says_so_in_one_line(gateway: GatewayDouble) -> None:
    process = provgate(gateway, "all", ENDLESS.hex())
    assert process.stdout is not None
    process.stdout.readline()
    threading.Thread(target=process.stdout.read, daemon=True).start()
    assert interrupted(process) == ["Interrupted."]


def test_an_index_whose_threads_wait_for_acks_ends_and_says_how_to_continue(gateway: GatewayDouble) -> None:
    stalled, release = threading.Event(), threading.Event()

    def stall(name: str, rows: object) -> bool:
        stalled.set()
        return release.wait(TIMEOUT_S)

    gateway.storage.write_rows = stall  # type: ignore[method-assign]
    process = provgate(gateway, "index", str(Path(__file__).parents[3]), "--origin", "https://example.org/")
    assert stalled.wait(TIMEOUT_S)
    try:
        last = interrupted(process)[-1]
    finally:
        release.set()
    assert last == "Interrupted. What was acked is stored; run the same command again to go on."


def test_a_command_that_waits_for_input_ends_and_says_what_is_acked(gateway: GatewayDouble) -> None:
    process = provgate(gateway, "add", "contents")
    assert process.stdin is not None
    process.stdin.writelines(f'{{"id": "{id.hex()}"}}\n' for id in make_ids(BATCH_ENTRIES))
    process.stdin.flush()
    assert gateway.seen.ended.wait(TIMEOUT_S)
    # It has written a batch, or is just about to know, and waits for the next one.
    assert [line.partition(" ")[2] for line in interrupted(process)][-2:] == ["entries acked", ""]


def test_a_command_that_waits_for_the_connection_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        process = start(
            "-m", "provgate_client.cli", "--url", address, "--connect-timeout-s", "300", "get", "all", "contents"
        )
        silent.settimeout(TIMEOUT_S)
        connection, _ = silent.accept()
        with connection:
            assert interrupted(process) == ["Interrupted."]


PROGRAM = """
import os, signal, sys, threading
from provgate_client.cli.add import BATCH_ENTRIES
from provgate_client.cli.connection import closed_at_interrupt

class Storage:
    closed = threading.Event()
    def close(self):
        self.closed.set()

def unwoken():
    # The signal goes to another thread, so it does not wake the main thread, which waits without a time limit.
    threading.Timer(0.1, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT)).start()
    Storage.closed.wait()
    raise OSError("closed")

def stubborn():
    print("started", flush=True)
    while True:
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass

with closed_at_interrupt(Storage(), "ended"):
    {body}()
"""


def test_a_signal_that_does_not_wake_the_main_thread_ends_the_block_too() -> None:
    process = start("-c", PROGRAM.replace("{body}", "unwoken"))
    _, stderr = process.communicate(timeout=TIMEOUT_S)
    assert "OSError: closed" in stderr
    assert stderr.splitlines()[-1].endswith("CommandInterruptedError: ended")


def test_a_block_that_does_not_end_is_ended() -> None:
    process = start("-c", PROGRAM.replace("{body}", "stubborn"))
    assert process.stdout is not None
    process.stdout.readline()
    assert interrupted(process) == ["ended"]


def test_other_errors_pass_and_the_handler_is_restored() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(OSError, match="other"), closed_at_interrupt(ProvenanceStorageGrpc(), "ended"):
        raise OSError("other")
    assert signal.getsignal(signal.SIGINT) is before
