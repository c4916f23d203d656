"""Files that are read again when they change, while the program runs."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

from provgate_config import ConfigurationError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_Mark: TypeAlias = tuple[int, int, int] | None
"""Modification time in nanoseconds, size and inode of a file; None where there is none."""


class WatchedFiles(Generic[T]):
    """What some files say together, asked for again and again. Thread-safe.

    It owns the last good value, and the marks that the files had before they were last read: one that changes while it
    is read is read again at the next turn. Files that are missing or wrong leave the value as it is, and are logged as
    an error, once for each state of them.

    Args:
        files: their paths.
        read: reads and checks them. Raises `ConfigurationError`.

    Raises:
        ConfigurationError: they cannot be read, or are wrong, now.
    """

    def __init__(self, files: Sequence[str], read: Callable[[], T]) -> None:
        self._files = files
        self._read = read
        self._lock = threading.Lock()
        self._marks = self._marks_now()
        self._value = read()

    def current(self) -> T:
        """Returns what the files say now, the same object for as long as they do not change."""
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
            logger.error("%s; what was read before stays in force", error.message, extra=extra)
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
