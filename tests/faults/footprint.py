"""What a process holds of the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import psutil

MIB = 2**20


@dataclass(frozen=True)
class Footprint:
    """What a process holds.

    Attributes:
        memory_bytes: its own memory: what would be free if it ended.
        thread_count: its threads.
        file_count: its open files and sockets.
    """

    memory_bytes: int
    thread_count: int
    file_count: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """Measures a process."""
        process = psutil.Process(pid)
        with process.oneshot():
            return cls(process.memory_full_info().uss, process.num_threads(), process.num_fds())

    def __str__(self) -> str:
        return f"{self.memory_bytes / MIB:.1f} MiB, {self.thread_count} threads, {self.file_count} files"
