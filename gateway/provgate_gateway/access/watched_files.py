"""Files that the gateway reads again when they change: tokens and certificates."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

from provgate_runtime import ConfigurationError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_Mark: TypeAlias = tuple[int, int, int] | None
"""Modification time in nanoseconds, size and inode of a file; None if it does not exist."""


class WatchedFiles(Generic[T]):
    """The content of some files, read again when one changes. Thread-safe.

    Missing or invalid files leave the value as it is, and are logged as an error once for each change. The marks are
    taken before the files are read, so a change in between causes another read.

    Args:
        files: the paths.
        read: reads and checks the files. Raises `ConfigurationError`.

    Raises:
        ConfigurationError: the files cannot be read now, or are invalid.
    """

    def __init__(self, files: Sequence[str], read: Callable[[], T]) -> None:
        self._files = files
        self._read = read
        self._lock = threading.Lock()
        self._marks = self._marks_now()
        self._value = read()

    def current(self) -> T:
        """Returns the content now: the same object until a file changes."""
        with self._lock:
            marks = self._marks_now()
            if marks != self._marks:
                self._marks = marks
                self._read_again()
            return self._value

    def _read_again(self) -> None:
        try:
            self._value = self._read()
        except ConfigurationError as error:
            extra = {"action": "files.read", "state": "failing", "reason": error.message}
            logger.error("%s; the last valid content stays in force", error.message, extra=extra)
        else:
            files = ", ".join(self._files)
            logger.info("read again: %s", files, extra={"action": "files.read", "state": "working", "files": files})

    def _marks_now(self) -> list[_Mark]:
        return [_mark(file) for file in self._files]


def _mark(file: str) -> _Mark:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
