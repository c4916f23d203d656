"""What is left of a stack when its launcher stops or was killed: processes, shared memory, directories."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil

from provgate_stack.errors import StackError
from provgate_stack.layout import DIRECTORY_VARIABLE, OUTSIDE_FILE, OUTSIDE_PARENT, OUTSIDE_PREFIX, ROLE_VARIABLE


@contextmanager
def locked(directory: Path) -> Iterator[int]:
    """Holds the lock of a directory, once whoever holds it has given it up; gives the descriptor that holds it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def lock_if_free(directory: Path) -> int | None:
    """Returns a descriptor that holds the lock of a directory until it is closed, or None where another has it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


_ROUNDS: Final = 20
_ROUND_S: Final = 0.5
_POLL_S: Final = 0.01


def remove_stack(directory: Path) -> None:
    """Ends every process of a stack, and removes all that it has on disk. The caller holds the directory's lock.

    Raises:
        StackError: a process does not go away.
    """
    directories = [directory, *_outside(directory)]
    data_directories = [file.parent for path in directories for file in path.glob("**/postmaster.pid")]
    _end_processes(directory, data_directories)
    for data_directory in data_directories:
        _remove_shared_memory(data_directory)
    # The one that records the others goes last.
    for path in reversed(directories):
        shutil.rmtree(path, ignore_errors=True)


def processes_of(directory: Path) -> list[psutil.Process]:
    """Returns the live processes that carry the mark of a stack."""
    return [
        process for process in psutil.process_iter() if _environment(process).get(DIRECTORY_VARIABLE) == str(directory)
    ]


def role_of(process: psutil.Process) -> str:
    """Returns what a process of a stack is for; empty where it is gone."""
    return _environment(process).get(ROLE_VARIABLE, "")


def wait_gone(processes: Sequence[psutil.Process], timeout_s: float) -> None:
    """Returns when none of the processes runs any more, or after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while any(_runs(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _outside(directory: Path) -> list[Path]:
    record = directory / OUTSIDE_FILE
    lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    paths = [Path(line) for line in lines]
    return [path for path in paths if path.parent == OUTSIDE_PARENT and path.name.startswith(OUTSIDE_PREFIX)]


def _end_processes(directory: Path, data_directories: Sequence[Path]) -> None:
    for _ in range(_ROUNDS):
        # Again until none is left: a process that is about to be killed may start another.
        processes = processes_of(directory) + _postgresql_processes(data_directories)
        if not processes:
            return
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        wait_gone(processes, _ROUND_S)
    raise StackError(f"the processes {[process.pid for process in processes]} of {directory} do not end")


def _remove_shared_memory(data_directory: Path) -> None:
    # The System V segment of a killed PostgreSQL; one that stops by itself removes its own. Its key and id are the
    # seventh line: https://www.postgresql.org/docs/current/storage-file-layout.html
    try:
        lines = (data_directory / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        # It stopped by itself after all.
        return
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
