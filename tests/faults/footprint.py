"""What a process holds of the machine, once and over time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final, Self

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

    def check_grown_by_less(self, before: Footprint, growth_bytes: int) -> None:
        """Checks that a process has no more files than before, and not much more memory."""
        assert self.memory_bytes - before.memory_bytes < growth_bytes, f"{before}; {self}"
        assert self.file_count <= before.file_count, f"{before}; {self}"

    def __str__(self) -> str:
        return f"{self.memory_bytes / MIB:.1f} MiB, {self.thread_count} threads, {self.file_count} files"


def peak_bytes(pid: int) -> int:
    """Returns the most memory that a process has had resident."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


# A process has seen its first load, and its caches are full, after this long.
_WARM_UP_S: Final = 10.0

# Fewer measurements than these show no trend.
_SAMPLES_MIN_COUNT: Final = 6

# What a process may be larger by in the end. Buffers that grew during a fault are not all given back to the system; a
# leak goes on growing.
_TREND_MAX_BYTES: Final = 24 * MIB
_TREND_MAX_FILES: Final = 16


class MemoryWatch:
    """Measures processes and their descendants over time. A process that is started anew is another one."""

    def __init__(self) -> None:
        # Proportional set size in bytes, and open files.
        self._samples: dict[tuple[str, psutil.Process], list[tuple[int, int]]] = {}

    def measure(self, pids: Iterable[tuple[str, int]]) -> None:
        """Measures once, in a moment in which nothing is broken, by name and pid."""
        for name, pid in pids:
            for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
                if time.time() - process.create_time() > _WARM_UP_S:
                    sample = (process.memory_full_info().pss, process.num_fds())
                    self._samples.setdefault((name, process), []).append(sample)

    def check(self) -> None:
        """Fails if a process has grown."""
        for name, samples, grown_bytes, grown_files in self._trends():
            assert grown_bytes <= _TREND_MAX_BYTES, f"{name} grew by {grown_bytes / MIB:.1f} MiB: {samples}"
            assert grown_files <= _TREND_MAX_FILES, f"{name} holds {grown_files} files more: {samples}"

    def report(self) -> list[str]:
        """Returns a line for each process."""
        return [
            f"{name}: {samples[0][0] / MIB:.1f} to {samples[-1][0] / MIB:.1f} MiB PSS (trend {grown / MIB:+.1f}),"
            f" {samples[0][1]} to {samples[-1][1]} files, {len(samples)} times"
            for name, samples, grown, _ in self._trends()
        ]

    def _trends(self) -> Iterator[tuple[str, list[tuple[int, int]], int, int]]:
        """Yields by how much the median of the last third is above that of the first: bytes and open files."""
        for (name, process), samples in self._samples.items():
            if len(samples) >= _SAMPLES_MIN_COUNT:
                third = len(samples) // 3
                grown = [
                    int(
                        median(sample[i] for sample in samples[-third:])
                        - median(sample[i] for sample in samples[:third])
                    )
                    for i in (0, 1)
                ]
                yield f"{name} {process.pid}", samples, grown[0], grown[1]
