"""The directory of one stack: what it keeps on disk, and how it is found again when its launcher died.

Every process of a stack inherits an environment variable that names this directory. Whoever holds the directory's lock
can therefore end all of them, also those whose pid nobody wrote down, because the launcher was killed at that moment.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from provgate_stack.errors import StackError
from provgate_stack.leftovers import end_processes, remove_shared_memory

# Names the directory in the environment of each process of the stack.
DIRECTORY_VARIABLE: Final = "PROVGATE_STACK_DIRECTORY"

# Names what the process is for: rabbitmq, postgresql, workers, gateway.
ROLE_VARIABLE: Final = "PROVGATE_STACK_ROLE"

_RUNNING: Final = "running.json"
_OUTSIDE: Final = "outside"
_OUTSIDE_PARENT: Final = Path("/tmp")
_OUTSIDE_PREFIX: Final = "provgate-stack-"


class StackDirectory:
    """One stack's directory below the `.stack` of a clone, locked for as long as its launcher lives.

    Attributes:
        path: absolute; mode 0700.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def claim(cls, root: Path, kind: str) -> StackDirectory:
        """Makes and locks a new directory, after whatever dead launchers left behind below `root` is removed.

        Args:
            root: the `.stack` of a clone; made where it does not exist.
            kind: the start of the directory's name, for people who look.
        """
        with _root_locked(root):
            _remove_abandoned(root)
            path = root.resolve() / f"{kind}-{secrets.token_hex(4)}"
            path.mkdir(mode=0o700)
            return cls(path, _locked(path))

    def environment(self, role: str) -> dict[str, str]:
        """Returns the variables that mark a process of this stack."""
        return {DIRECTORY_VARIABLE: str(self.path), ROLE_VARIABLE: role}

    def subdirectory(self, name: str) -> Path:
        """Returns a directory below this one; it is made, mode 0700, where it does not exist."""
        path = self.path / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def outside_directory(self) -> Path:
        """Makes a directory outside the clone, for a user who may not enter it, and returns it.

        It is recorded before it is made, so that it never outlives this one.
        """
        path = _OUTSIDE_PARENT / f"{_OUTSIDE_PREFIX}{secrets.token_hex(8)}"
        with (self.path / _OUTSIDE).open("a", encoding="utf-8") as record:
            record.write(f"{path}\n")
        path.mkdir(mode=0o700)
        return path

    def keep_running(self, facts: dict[str, Any]) -> None:
        """Gives the directory up without an end of its processes: `running` finds it and its facts afterwards."""
        _write_atomically(self.path / _RUNNING, json.dumps(facts, indent=2))
        os.close(self._lock)

    def remove(self) -> None:
        """Ends every process of the stack that is left, and removes all that is on disk. Idempotent."""
        if self.path.exists():
            _remove(self.path)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def running(root: Path) -> dict[Path, dict[str, Any]]:
    """Returns the directories of the stacks that were left running below `root`, each with its facts."""
    return {file.parent: json.loads(file.read_text(encoding="utf-8")) for file in sorted(root.glob(f"*/{_RUNNING}"))}


def remove_running(root: Path) -> None:
    """Ends and removes the stacks that were left running below `root`, and what dead launchers left behind."""
    if not root.is_dir():
        return
    with _root_locked(root):
        for file in root.glob(f"*/{_RUNNING}"):
            file.unlink()
        _remove_abandoned(root)


@contextmanager
def _root_locked(root: Path) -> Iterator[None]:
    root.mkdir(parents=True, exist_ok=True)
    lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _locked(path: Path) -> int:
    """Returns a descriptor that holds the lock of a directory; it ends with the process that holds it."""
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise StackError(f"{path} belongs to another launcher") from error
    return lock


def _remove_abandoned(root: Path) -> None:
    for path in root.resolve().iterdir():
        if not path.is_dir() or (path / _RUNNING).exists():
            continue
        try:
            lock = _locked(path)
        except StackError:
            continue
        try:
            _remove(path)
        finally:
            os.close(lock)


def _remove(path: Path) -> None:
    directories = [path, *_outside(path)]
    data_directories = [file.parent for directory in directories for file in directory.glob("**/postmaster.pid")]
    end_processes(DIRECTORY_VARIABLE, str(path), data_directories)
    for data_directory in data_directories:
        remove_shared_memory(data_directory)
    # The one that records the others goes last.
    for directory in reversed(directories):
        shutil.rmtree(directory, ignore_errors=True)


def _outside(path: Path) -> list[Path]:
    record = path / _OUTSIDE
    lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    paths = [Path(line) for line in lines]
    return [path for path in paths if path.parent == _OUTSIDE_PARENT and path.name.startswith(_OUTSIDE_PREFIX)]


def _write_atomically(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
