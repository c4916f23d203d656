"""One child program: start, wait until ready, stop."""

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

# Below the ports that the kernel hands out to clients (from 32768), so that no outgoing connection takes a server's
# port while that server is being restarted, and clear of the standard ports of any server in question.
_CANDIDATES: Final = range(20_000, 32_000)
_ATTEMPTS: Final = 1_000


def free_ports(count: int) -> list[int]:
    """Returns `count` different ports that nothing listens on.

    They are chosen at random, so that stacks that start at the same moment do not choose the same.

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
    raise StackError(f"{count} free ports between {_CANDIDATES.start} and {_CANDIDATES.stop} were not found")


def free_port(preferred: int) -> int:
    """Returns `preferred` if nothing listens on it, else another free port."""
    with ExitStack() as held:
        if _hold(preferred, held):
            return preferred
    return free_ports(1)[0]


def _hold(port: int, held: ExitStack) -> bool:
    candidate = held.enter_context(socket.socket())
    # As servers do: a port of a server that has just ended (TIME_WAIT) counts as free.
    candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        candidate.bind((LOOPBACK, port))
    except OSError:
        return False
    return True


class User(NamedTuple):
    """Whom a program runs as."""

    uid: int
    gid: int


_POLL_S: Final = 0.02
_GONE_S: Final = 10.0
_LOG_TAIL_LINES: Final = 30


class ChildProgram:
    """A program in a session of its own, so that a Ctrl-C at the terminal reaches the launcher alone.

    Not thread-safe. `start` may be called again after the program ended; the log file is appended to.

    Args:
        command: the program and its arguments.
        environment: the whole environment of the program.
        log_path: where its standard output and error go.
        user: runs as this user; as the launcher's where None.
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
        """The pid of the program, which is its process group and session too.

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
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as_user(), *self.command],
                cwd="/",
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Returns as soon as `ready` says so.

        Raises:
            StartError: the program ended, or `timeout_s` passed.
        """
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not self.alive:
                raise StartError(f"{self._described()} ended with {self._started().returncode}{self._log_tail()}")
            if time.monotonic() > deadline:
                raise StartError(f"{self._described()} was not ready in {timeout_s:.0f} s{self._log_tail()}")
            time.sleep(_POLL_S)

    def complete(self, timeout_s: float) -> None:
        """Returns when the program has done its work: it ended with exit code 0.

        Raises:
            StartError: it ended otherwise, or `timeout_s` passed; it was killed then.
        """
        try:
            code = self._started().wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise StartError(f"{self._described()} did not end in {timeout_s:.0f} s{self._log_tail()}") from error
        if code != 0:
            raise StartError(f"{self._described()} ended with {code}{self._log_tail()}")

    def terminate(self, timeout_s: float = 30.0, request: signal.Signals = signal.SIGTERM) -> int:
        """Asks the program to end, waits for it, and returns its exit code: minus the signal where one ended it.

        Raises:
            StackError: it did not end in time; it was killed then.
        """
        if self.alive:
            # A stopped process takes no signal but SIGKILL and SIGCONT.
            self.cont()
            self._started().send_signal(request)
        try:
            return self._started().wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise StackError(f"{self._described()} did not end in {timeout_s:.0f} s{self._log_tail()}") from error

    def kill(self) -> None:
        """Kills the program, its process group and their descendants; returns when all are gone. Idempotent."""
        if self._process is None:
            return
        descendants = self._descendants()
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
        """Lets a suspended program go on (SIGCONT)."""
        self._signal_group(signal.SIGCONT)

    def _as_user(self) -> list[str]:
        # Not by Popen: to change the user it has to fork, which a launcher with gRPC's threads may not survive.
        if self._user is None:
            return []
        return ["setpriv", f"--reuid={self._user.uid}", f"--regid={self._user.gid}", "--clear-groups", "--"]

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise StackError(f"{self.command[0]} was not started")
        return self._process

    def _signal_group(self, request: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, request)

    def _descendants(self) -> list[psutil.Process]:
        # They may have a session of their own, as backends of PostgreSQL and ports of Erlang have.
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def _described(self) -> str:
        return " ".join(self.command[:2])

    def _log_tail(self) -> str:
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        return "\n".join([f"; the end of {self.log_path}:", *lines]) if lines else f" ({self.log_path} is empty)"
