"""One child program: start, wait until ready, stop; and free ports for it."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from provgate_stack.errors import StackError, StartError
from provgate_stack.processes.leftovers import wait_gone

LOOPBACK: Final = "127.0.0.1"

# Below the ports that the kernel gives to clients (from 32768), so that no outgoing connection takes a server's port
# during its restart, and above the standard ports of all servers.
_CANDIDATES: Final = range(20_000, 32_000)
_ATTEMPTS: Final = 1_000

_POLL_S: Final = 0.02
_GONE_S: Final = 10.0
_LOG_TAIL_LINES: Final = 30


def free_ports(count: int) -> list[int]:
    """Returns `count` different ports that nothing listens on.

    They are random, so that stacks that start at the same moment do not choose the same ports.

    Raises:
        StackError: no free port was found.
    """
    ports: list[int] = []
    with ExitStack() as held:
        for port in random.sample(_CANDIDATES, _ATTEMPTS):
            if len(ports) == count:
                return ports
            if _hold(port, held):
                ports.append(port)
    raise StackError(f"there are not {count} free ports between {_CANDIDATES.start} and {_CANDIDATES.stop}")


def free_port(preferred: int) -> int:
    """Returns `preferred` if nothing listens on it, else another free port."""
    with ExitStack() as held:
        if _hold(preferred, held):
            return preferred
    return free_ports(1)[0]


def _hold(port: int, held: ExitStack) -> bool:
    candidate = held.enter_context(socket.socket())
    # As servers do: the port of a server that has just ended (TIME_WAIT) is free.
    candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        candidate.bind((LOOPBACK, port))
    except OSError:
        return False
    return True


class User(NamedTuple):
    """The user that a program runs as."""

    uid: int
    gid: int


class ChildProgram:
    """A program in a session of its own, so that a Ctrl-C at the terminal reaches the launcher alone.

    Not thread-safe. `start` may be called again after the program ended; the log file is appended to.

    Args:
        command: the program and its arguments.
        environment: the whole environment of the program.
        log_path: the file of its standard output and error.
        user: the user it runs as; the launcher's if None.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log_path: Path, user: User | None = None
    ) -> None:
        self.command = list(command)
        self.environment = dict(environment)
        self.log_path = log_path
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The pid of the program, which is also its process group and session.

        Raises:
            StackError: it was never started.
        """
        return self._started().pid

    @property
    def alive(self) -> bool:
        """Whether the program was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the program; returns at once."""
        if self.alive:
            raise StackError(f"{self.command[0]} runs already")
        # Popen would have to fork to change the user, which a launcher with gRPC's threads may not survive.
        as_user = ["setpriv", f"--reuid={self._user.uid}", f"--regid={self._user.gid}"] if self._user else []
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*as_user, *(["--clear-groups", "--"] if as_user else []), *self.command],
                cwd="/",
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Returns as soon as `ready` returns true.

        Raises:
            StartError: the program ended, or `timeout_s` passed.
        """
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not self.alive:
                raise StartError(self._failure(f"ended with {self._started().returncode}"))
            if time.monotonic() > deadline:
                raise StartError(self._failure(f"was not ready in {timeout_s:.0f} s"))
            time.sleep(_POLL_S)

    def complete(self, timeout_s: float) -> None:
        """Waits for the end of the program, with exit code 0.

        Raises:
            StartError: it ended with another code, or `timeout_s` passed and it was killed.
        """
        try:
            code = self._started().wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise StartError(self._failure(f"did not end in {timeout_s:.0f} s")) from error
        if code != 0:
            raise StartError(self._failure(f"ended with {code}"))

    def terminate(self, timeout_s: float = 30.0, request: signal.Signals = signal.SIGTERM) -> int:
        """Asks the program to end, waits for it, and returns its exit code: minus the signal if one ended it.

        Raises:
            StackError: it did not end in time and was killed.
        """
        if self.alive:
            # A stopped process handles no signal but SIGKILL and SIGCONT.
            self.cont()
            self._started().send_signal(request)
        try:
            return self._started().wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise StackError(self._failure(f"did not end in {timeout_s:.0f} s")) from error

    def kill(self) -> None:
        """Kills the program, its process group and their descendants; returns when all are gone. Idempotent."""
        if self._process is None:
            return
        descendants: list[psutil.Process] = []
        # They may have sessions of their own, as backends of PostgreSQL and ports of Erlang have.
        with suppress(psutil.NoSuchProcess):
            descendants = psutil.Process(self.pid).children(recursive=True)
        self._signal_group(signal.SIGKILL)
        for descendant in descendants:
            with suppress(psutil.NoSuchProcess):
                descendant.kill()
        self._process.wait()
        wait_gone(descendants, _GONE_S)

    def stop(self) -> None:
        """Suspends the program and its process group (SIGSTOP) until `cont`."""
        self._signal_group(signal.SIGSTOP)

    def cont(self) -> None:
        """Continues a suspended program (SIGCONT)."""
        self._signal_group(signal.SIGCONT)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise StackError(f"{self.command[0]} was not started")
        return self._process

    def _signal_group(self, request: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, request)

    def _failure(self, what: str) -> str:
        """Returns a message with the end of the log."""
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        tail = "\n".join([f"; the end of {self.log_path}:", *lines]) if lines else f" ({self.log_path} is empty)"
        return f"{' '.join(self.command[:2])} {what}{tail}"
