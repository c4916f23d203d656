"""The directory of one stack: what it keeps on disk, and how it is found again when its launcher died.

Every process of a stack inherits an environment variable that names this directory. Whoever holds the directory's lock
can therefore end all of them, also those whose pid nobody wrote down because the launcher was killed at that moment.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from provgate_stack.errors import StackError
from provgate_stack.layout import (
    DIRECTORY_VARIABLE,
    OUTSIDE_FILE,
    OUTSIDE_PARENT,
    OUTSIDE_PREFIX,
    ROLE_VARIABLE,
    RUNNING_FILE,
)
from provgate_stack.processes.guardian import Guardian
from provgate_stack.processes.leftovers import lock_if_free, locked, remove_stack


class StackDirectory:
    """One stack's directory below the `.stack` of a clone, locked for as long as its launcher lives.

    Attributes:
        path: absolute; mode 0700.
    """

    def __init__(self, path: Path, held: int) -> None:
        self.path = path
        self._held: int | None = held
        self._guardian = Guardian(path)

    @classmethod
    def claim(cls, root: Path, name: str) -> StackDirectory:
        """Makes and locks a new directory, after whatever dead launchers left behind below `root` is removed.

        Args:
            root: the `.stack` of a clone; made where it does not exist.
            name: of the directory.

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
            held = lock_if_free(path)
        if held is None:
            raise StackError(f"{path} was made here, and locked by somebody else")
        return cls(path, held)

    @classmethod
    def claim_new(cls, root: Path, kind: str) -> StackDirectory:
        """As `claim`, with a name that starts with `kind` and that no other launcher has."""
        return cls.claim(root, f"{kind}-{secrets.token_hex(4)}")

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
        path = OUTSIDE_PARENT / f"{OUTSIDE_PREFIX}{secrets.token_hex(8)}"
        with (self.path / OUTSIDE_FILE).open("a", encoding="utf-8") as record:
            record.write(f"{path}\n")
        path.mkdir(mode=0o700)
        return path

    def keep_running(self, facts: dict[str, Any]) -> None:
        """Gives the directory up without an end of its processes: `running` finds it and its facts afterwards."""
        partial = self.path / "running.partial"
        partial.write_text(json.dumps(facts, indent=2), encoding="utf-8")
        partial.replace(self.path / RUNNING_FILE)
        self._release()

    def remove(self) -> None:
        """Ends every process of the stack that is left, and removes all that is on disk. Idempotent."""
        if self._held is None:
            return
        remove_stack(self.path)
        self._release()

    def _release(self) -> None:
        self._guardian.dismiss()
        if self._held is not None:
            os.close(self._held)
            self._held = None


def running(root: Path) -> dict[Path, dict[str, Any]]:
    """Returns the directories of the stacks that were left running below `root`, each with its facts."""
    return {
        file.parent: json.loads(file.read_text(encoding="utf-8")) for file in root.resolve().glob(f"*/{RUNNING_FILE}")
    }


def remove_running(root: Path) -> None:
    """Ends and removes the stacks that were left running below `root`, and what dead launchers left behind."""
    if not root.is_dir():
        return
    with locked(root):
        for file in root.glob(f"*/{RUNNING_FILE}"):
            file.unlink()
        _remove_abandoned(root)


def _remove_abandoned(root: Path) -> None:
    for path in root.resolve().iterdir():
        if not path.is_dir() or (path / RUNNING_FILE).exists():
            continue
        held = lock_if_free(path)
        if held is None:
            continue
        try:
            remove_stack(path)
        finally:
            os.close(held)
