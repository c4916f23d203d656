"""The clean-up of a stack: its processes, its shared memory, its directories. Also after a launcher that was killed.

Nothing but another process can remove a directory after `kill -9` of the launcher. So each launcher starts a guardian:
this module as a program. It waits for the lock of the stack's directory, which the kernel releases when the launcher
ends, and then removes the stack. If the guardian was killed too, the next launcher does it.

Process groups and parent-death signals miss programs that start sessions of their own, as Erlang and PostgreSQL do, and
those of a launcher that was killed before it recorded their pids. Therefore every process of a stack inherits an
environment variable that names the stack's directory, and is found by it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil

from provgate_stack.errors import StackError

# Names the stack's directory in the environment of each of its processes.
DIRECTORY_VARIABLE: Final = "PROVGATE_STACK_DIRECTORY"

# Names the role of the process: rabbitmq, postgresql, mongodb, workers, gateway, client.
ROLE_VARIABLE: Final = "PROVGATE_STACK_ROLE"

# In the directory of a stack that its launcher left running: its addresses.
RUNNING_FILE: Final = "running.json"

# In a stack's directory: one line for each directory of the stack that is elsewhere.
OUTSIDE_FILE: Final = "outside"
OUTSIDE_PARENT: Final = Path("/tmp")
OUTSIDE_PREFIX: Final = "provgate-stack-"

_ROUNDS: Final = 20
_ROUND_S: Final = 0.5
_POLL_S: Final = 0.01


@contextmanager
def locked(directory: Path) -> Iterator[int]:
    """Waits for the lock of a directory, and holds it for a block. Gives the descriptor that holds it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def lock_if_free(directory: Path) -> int | None:
    """Returns a descriptor that holds the lock of a directory until it is closed; None if another process has it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def start_guardian(directory: Path) -> subprocess.Popen[bytes]:
    """Starts the guardian of a directory that this process has locked. To dismiss it, kill it."""
    return subprocess.Popen(
        [sys.executable, "-m", "provgate_stack.processes.leftovers", str(directory)],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # A Ctrl-C at the terminal must not reach it.
        start_new_session=True,
    )


def _guard(directory: Path) -> None:
    # A launcher that ends normally has removed the directory.
    with suppress(FileNotFoundError), locked(directory) as descriptor:
        # Another launcher may have removed it in the meantime, and made a new directory of the same name.
        same = os.fstat(descriptor).st_ino == directory.stat().st_ino
        if same and not (directory / RUNNING_FILE).exists():
            remove_stack(directory)


def remove_stack(directory: Path) -> None:
    """Ends every process of a stack, and removes all its files. The caller holds the directory's lock.

    Raises:
        StackError: a process does not end.
    """
    record = directory / OUTSIDE_FILE
    lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    outside = [path for path in map(Path, lines) if path.parent == OUTSIDE_PARENT]
    # The one with the record is removed last.
    directories = [*(path for path in outside if path.name.startswith(OUTSIDE_PREFIX)), directory]
    for _ in range(_ROUNDS):
        # A process may start another one before it is killed; a process that ends may still write a file.
        processes = list(processes_of(directory))
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        wait_gone(processes, _ROUND_S)
        if not processes:
            for path in directories:
                _remove_shared_memory(path)
                shutil.rmtree(path, ignore_errors=True)
            if not directory.exists():
                return
            time.sleep(_POLL_S)
    pids = [process.pid for process in processes]
    raise StackError(f"{directory} cannot be removed; processes that do not end: {pids or 'none'}")


def processes_of(directory: Path) -> dict[psutil.Process, str]:
    """Returns the live processes of a stack and their roles: those with its mark, and all their descendants.

    The descendants include PostgreSQL's backends, which overwrite their environment.
    """
    roles: dict[psutil.Process, str] = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            environment = process.environ()
            if environment.get(DIRECTORY_VARIABLE) == str(directory) and _runs(process):
                roles[process] = environment.get(ROLE_VARIABLE, "")
                for child in filter(_runs, process.children(recursive=True)):
                    roles.setdefault(child, roles[process])
    return roles


def wait_gone(processes: Sequence[psutil.Process], timeout_s: float) -> None:
    """Returns when none of the processes runs any more, or after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while any(map(_runs, processes)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _runs(process: psutil.Process) -> bool:
    # A zombie holds no port and no file; its parent decides when it disappears.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _remove_shared_memory(directory: Path) -> None:
    # The System V segment of a killed PostgreSQL; one that stops normally removes it. Its key and id are the seventh
    # line: https://www.postgresql.org/docs/current/storage-file-layout.html
    for file in directory.glob("**/postmaster.pid"):
        with suppress(FileNotFoundError):
            fields = [line.split() for line in file.read_text(encoding="utf-8").splitlines()][6:7]
            if fields and len(fields[0]) == 2:
                subprocess.run(["ipcrm", "-m", fields[0][1]], stderr=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _guard(Path(sys.argv[1]))
