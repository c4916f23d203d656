"""The directory of one stack, locked while its launcher lives. `leftovers` explains the lock and the clean-up."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import msgspec

from provgate_stack.errors import StackError
from provgate_stack.processes.leftovers import (
    DIRECTORY_VARIABLE,
    OUTSIDE_FILE,
    OUTSIDE_PARENT,
    OUTSIDE_PREFIX,
    ROLE_VARIABLE,
    RUNNING_FILE,
    lock_if_free,
    locked,
    remove_stack,
    start_guardian,
)


class RunningStack(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a stack that was left running.

    Attributes:
        storage: its storage.
        gateway: the gateway's address.
        config: the configuration file for clients.
        logs: the directory of the logs.
        metrics: the addresses of the watch ports.
        roles: the roles of its processes.
    """

    storage: str
    gateway: str
    config: str
    logs: str
    metrics: list[str]
    roles: list[str]


class StackDirectory:
    """The directory of a stack below the `.stack` of a clone.

    Attributes:
        path: absolute; mode 0700.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock: int | None = lock
        self._guardian = start_guardian(path)

    @classmethod
    def claim(cls, root: Path, name: str) -> StackDirectory:
        """Makes and locks a new directory, after what dead launchers left below `root` is removed.

        Args:
            root: the `.stack` of a clone; made if it does not exist.
            name: the name of the directory.

        Raises:
            StackError: a living launcher has that directory, or a stack was left running in it.
        """
        root.mkdir(parents=True, exist_ok=True)
        with locked(root):
            _remove_abandoned(root)
            path = root.resolve() / name
            try:
                path.mkdir(mode=0o700)
            except FileExistsError as error:
                raise StackError(f"another launcher is at work in {path}") from error
            lock = lock_if_free(path)
        if lock is None:
            raise StackError(f"{path} is new, but another process has locked it")
        return cls(path, lock)

    @classmethod
    def claim_new(cls, root: Path, kind: str) -> StackDirectory:
        """As `claim`, with a unique name that starts with `kind`."""
        return cls.claim(root, f"{kind}-{secrets.token_hex(4)}")

    def environment(self, role: str) -> dict[str, str]:
        """Returns the variables that mark a process of this stack."""
        return {DIRECTORY_VARIABLE: str(self.path), ROLE_VARIABLE: role}

    def subdirectory(self, name: str) -> Path:
        """Returns a directory below this one; made, mode 0700, if it does not exist."""
        path = self.path / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def outside_directory(self) -> Path:
        """Makes a directory outside the clone, for a user who may not enter the clone.

        It is recorded before it is made, so that it is always removed together with this one.
        """
        path = OUTSIDE_PARENT / f"{OUTSIDE_PREFIX}{secrets.token_hex(8)}"
        with (self.path / OUTSIDE_FILE).open("a", encoding="utf-8") as record:
            record.write(f"{path}\n")
        path.mkdir(mode=0o700)
        return path

    def keep_running(self, facts: RunningStack) -> None:
        """Releases the directory and leaves its processes running. `running` finds it afterwards."""
        partial = self.path / "running.partial"
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(facts), indent=2))
        partial.replace(self.path / RUNNING_FILE)
        self._release()

    def remove(self) -> None:
        """Ends every process of the stack, and removes all its files. Idempotent; does nothing after `keep_running`."""
        if self._lock is not None:
            remove_stack(self.path)
            self._release()

    def _release(self) -> None:
        self._guardian.kill()
        self._guardian.wait()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def running(root: Path) -> dict[Path, RunningStack]:
    """Returns the stacks that were left running below `root`, by their directories."""
    files = root.resolve().glob(f"*/{RUNNING_FILE}")
    return {file.parent: msgspec.json.decode(file.read_bytes(), type=RunningStack) for file in files}


def remove_running(root: Path) -> None:
    """Ends and removes the stacks that were left running below `root`, and what dead launchers left."""
    if root.is_dir():
        with locked(root):
            for file in root.glob(f"*/{RUNNING_FILE}"):
                file.unlink()
            _remove_abandoned(root)


def _remove_abandoned(root: Path) -> None:
    for path in root.resolve().iterdir():
        if not path.is_dir() or (path / RUNNING_FILE).exists():
            continue
        lock = lock_if_free(path)
        if lock is not None:
            try:
                remove_stack(path)
            finally:
                os.close(lock)
