"""Whether a worker program lives and can store packages, from what its processes report. Pure bookkeeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from provgate_runtime.watch.conditions import Condition
from provgate_runtime.watch.port import LATE_AFTER_S
from provgate_workers.program.child_order import ChildReport


@dataclass(frozen=True, slots=True)
class _Process:
    report: ChildReport
    heard_at: float
    running: bool = True


class ProgramReadiness:
    """What is known of the processes of a program. One thread changes it, any thread may ask.

    Args:
        process_count: how many processes the program has.
        clock: tells monotonic seconds.
    """

    def __init__(self, process_count: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._preparation: str | None = "database and broker were not looked at yet"
        self._stopping = False
        self._processes: list[_Process | None] = [None] * process_count

    def waits(self, problem: str) -> None:
        """Notes why database and broker cannot be used yet."""
        self._preparation = problem

    def prepared(self) -> None:
        """Notes that database and broker are as they should be."""
        self._preparation = None

    def stopping(self) -> None:
        """Notes that the program was told to stop."""
        self._stopping = True

    def started(self, number: int) -> None:
        """Notes that a process was started."""
        self._processes[number] = _Process(ChildReport(storage_problem="it is not open yet"), self._clock())

    def reported(self, number: int, report: ChildReport) -> None:
        """Notes what a process reports."""
        self._processes[number] = _Process(report, self._clock())

    def ended(self, number: int) -> None:
        """Notes that a process has ended."""
        process = self._processes[number]
        if process is not None:
            self._processes[number] = _Process(process.report, process.heard_at, running=False)

    def alive(self) -> list[Condition]:
        """Returns, for each process that runs, whether it was heard of lately."""
        now = self._clock()
        return [
            Condition(f"process_{number}_reports", self._silence(now - process.heard_at))
            for number, process in enumerate(self._processes)
            if process is not None and process.running
        ]

    def ready(self) -> list[Condition]:
        """Returns what must hold for packages to be stored."""
        return [
            Condition("stopping", "the program was told to stop" if self._stopping else None),
            Condition("preparation", self._preparation),
            *(Condition(f"process_{number}", _state(process)) for number, process in enumerate(self._processes)),
            Condition("broker", self._joined(lambda report: report.broker_problem)),
            Condition("storage", self._joined(lambda report: report.storage_problem)),
        ]

    def _silence(self, silent_s: float) -> str | None:
        return f"nothing was heard of it for {silent_s:.0f} s" if silent_s > LATE_AFTER_S else None

    def _joined(self, problem_of: Callable[[ChildReport], str | None]) -> str | None:
        problems = {
            number: problem_of(process.report)
            for number, process in enumerate(self._processes)
            if process is not None and process.running
        }
        return "; ".join(f"process {number}: {problem}" for number, problem in problems.items() if problem) or None


def _state(process: _Process | None) -> str | None:
    if process is None:
        return "it was not started yet"
    if not process.running:
        return "it has ended, and is to be started again"
    return None if process.report.registered else "its consumers are not registered yet"
