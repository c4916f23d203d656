"""Whether processes stay as large as they were."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Final

import psutil

_MIB: Final = 1024 * 1024

# A process has seen its first load, and its caches are full, after so long.
_WARM_UP_S: Final = 10.0

# Fewer measurements than these say nothing of a trend.
_SAMPLES_MIN_COUNT: Final = 6

# What a process may be larger by in the end. Buffers that grew while a fault held everything back are not all given
# back to the system; what leaks goes on growing.
GROWTH_MAX_BYTES: Final = 24 * _MIB
GROWTH_MAX_FILES: Final = 16


@dataclass
class History:
    """The measurements of one process, in their order.

    Attributes:
        name: what it is.
        samples: proportional set size in bytes, and the count of open files.
    """

    name: str
    samples: list[tuple[int, int]] = field(default_factory=list)

    @property
    def growth(self) -> tuple[int, int]:
        """By how much the median of the last third is above that of the first: bytes and open files."""
        third = max(1, len(self.samples) // 3)
        first, last = self.samples[:third], self.samples[-third:]
        by_bytes, by_files = (int(median(s[i] for s in last) - median(s[i] for s in first)) for i in (0, 1))
        return by_bytes, by_files

    @property
    def tells(self) -> bool:
        """Whether it is long enough to tell anything."""
        return len(self.samples) >= _SAMPLES_MIN_COUNT


class MemoryWatch:
    """Measures processes and their descendants. A process that was started anew is another one."""

    def __init__(self) -> None:
        self._histories: dict[psutil.Process, History] = {}

    def measure(self, pids: Iterable[tuple[str, int]]) -> None:
        """Measures once, in a moment in which nothing is broken, by name and pid."""
        for name, pid in pids:
            for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
                if time.time() - process.create_time() > _WARM_UP_S:
                    self._measure(name, process)

    @property
    def histories(self) -> list[History]:
        """Those of all processes that tell something."""
        return [history for history in self._histories.values() if history.tells]

    def check(self) -> None:
        """Fails where a process has grown."""
        for history in self.histories:
            by_bytes, by_files = history.growth
            assert by_bytes <= GROWTH_MAX_BYTES, f"{history.name} grew by {by_bytes / _MIB:.1f} MiB: {history.samples}"
            assert by_files <= GROWTH_MAX_FILES, f"{history.name} holds {by_files} files more: {history.samples}"

    def report(self) -> list[str]:
        """Returns a line for each process."""
        return [
            f"{history.name}: {history.samples[0][0] / _MIB:.1f} to {history.samples[-1][0] / _MIB:.1f} MiB PSS (trend"
            f" {history.growth[0] / _MIB:+.1f}), {history.samples[0][1]} to {history.samples[-1][1]} files,"
            f" {len(history.samples)} times"
            for history in self.histories
        ]

    def _measure(self, name: str, process: psutil.Process) -> None:
        history = self._histories.setdefault(process, History(f"{name} {process.pid}"))
        history.samples.append((process.memory_full_info().pss, process.num_fds()))
