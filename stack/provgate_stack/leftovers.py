"""What outlives a launcher that was killed: processes, and PostgreSQL's shared memory segment."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from provgate_stack.errors import StackError

_ROUNDS: Final = 20
_ROUND_S: Final = 0.5
_POLL_S: Final = 0.01


def marked_processes(variable: str, value: str) -> list[psutil.Process]:
    """Returns the live processes that have `variable` = `value` in their environment."""
    return [process for process in psutil.process_iter() if _environment(process).get(variable) == value]


def end_processes(variable: str, value: str, data_directories: Sequence[Path]) -> None:
    """Kills the marked processes and the PostgreSQL of the given data directories; returns when all are gone.

    Raises:
        StackError: a process does not go away.
    """
    for _ in range(_ROUNDS):
        # Again until none is left: a process that is about to be killed may start another.
        processes = marked_processes(variable, value) + _postgresql_processes(data_directories)
        if not processes:
            return
        for process in processes:
            _kill(process)
        wait_gone(processes, _ROUND_S)
    raise StackError(f"the processes {[process.pid for process in processes]} of {value} do not end")


def wait_gone(processes: Sequence[psutil.Process], timeout_s: float) -> None:
    """Returns when none of the processes runs any more, or after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while any(_runs(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def remove_shared_memory(data_directory: Path) -> None:
    """Removes the System V segment of a killed PostgreSQL; a server that stops by itself removes its own."""
    lines = (data_directory / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    # The seventh line: key and id. https://www.postgresql.org/docs/current/storage-file-layout.html
    fields = lines[6].split() if len(lines) > 6 else []
    if len(fields) == 2:
        subprocess.run(["ipcrm", "-m", fields[1]], stderr=subprocess.DEVNULL, check=False)


def _runs(process: psutil.Process) -> bool:
    # A zombie holds no port and no file; when it goes is its parent's business.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _postgresql_processes(data_directories: Sequence[Path]) -> list[psutil.Process]:
    # A backend overwrites its environment with its title, but never leaves the data directory.
    if not data_directories:
        return []
    return [
        process
        for process in psutil.process_iter(["name"])
        if process.info["name"] in ("postgres", "postmaster")
        and _runs(process)
        and _working_directory(process) in data_directories
    ]


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ() if _runs(process) else {}
    except (psutil.Error, OSError):
        # Gone in the meantime, or somebody else's.
        return {}


def _working_directory(process: psutil.Process) -> Path | None:
    try:
        return Path(process.cwd())
    except (psutil.Error, OSError):
        return None


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
