"""Cleans up after a launcher that was killed.

The guardian is a program of its own that waits for the lock of the launcher's directory, which the kernel gives up when
the launcher ends. A launcher that cleaned up by itself has removed the directory by then.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from provgate_stack.layout import RUNNING_FILE
from provgate_stack.processes.leftovers import locked, remove_stack

_END_S: Final = 10.0


class Guardian:
    """The guardian of a directory that the caller has locked."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "provgate_stack.processes.guardian", str(directory)],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # A Ctrl-C at the terminal must not reach it.
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """Ends the guardian: the directory is removed, or is to outlive the launcher."""
        self._process.kill()
        self._process.wait(_END_S)


def guard(directory: Path) -> None:
    """Waits for the lock of a directory, and removes the stack unless it was removed or left running on purpose."""
    try:
        with locked(directory) as descriptor:
            # Another launcher may have cleaned up in the meantime, and made a new directory of the same name.
            same = os.fstat(descriptor).st_ino == directory.stat().st_ino
            if same and not (directory / RUNNING_FILE).exists():
                remove_stack(directory)
    except FileNotFoundError:
        return


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    guard(Path(sys.argv[1]))
