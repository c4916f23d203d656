"""Whether a worker program is alive and can store packages, from the reports of its processes. Pure bookkeeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from provgate_runtime.watch.conditions import LATE_AFTER_S, Condition
from provgate_workers.program.messages import ChildReport


@dataclass(frozen=True, slots=True)
class _Process:
    report: ChildReport
    reported_at_s: float
    running: bool = True

    @property
    def problem(self) -> str | None:
        if not self.running:
            return "it has ended, and is to be started again"
        return None if self.report.registered else "its consumers are not registered yet"


class ProgramReadiness:
    """The state of a program and its processes. One thread changes it, any thread may ask.

    Args:
        process_count: the number of processes.
        clock: returns monotonic seconds.
    """

    def __init__(self, process_count: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._preparation: str | None = "database and broker were not checked yet"
        self._stopping = False
        self._processes: list[_Process | None] = [None] * process_count

    def waits(self, problem: str) -> None:
        """Notes why database and broker cannot be used yet."""
        self._preparation = problem

    def prepared(self) -> None:
        """Notes that database and broker can be used."""
        self._preparation = None

    def stopping(self) -> None:
        """Notes that the program is to stop."""
        self._stopping = True

    def started(self, number: int) -> None:
        """Notes that a process was started."""
        self.reported(number, ChildReport(storage_problem="it is not open yet"))

    def reported(self, number: int, report: ChildReport) -> None:
        """Notes the report of a process."""
        self._processes[number] = _Process(report, self._clock())

    def ended(self, number: int) -> None:
        """Notes that a process has ended."""
        process = self._processes[number]
        if process is not None:
            self._processes[number] = replace(process, running=False)

    def alive(self) -> list[Condition]:
        """Returns, for each process that runs, whether it reported lately."""
        silences_s = {number: self._clock() - process.reported_at_s for number, process in self._running().items()}
        return [
            Condition(
                f"process_{number}_reports", f"no report for {silence_s:.0f} s" if silence_s > LATE_AFTER_S else None
            )
            for number, silence_s in silences_s.items()
        ]

    def ready(self) -> list[Condition]:
        """Returns what must hold for packages to be stored."""
        processes = [
            Condition(f"process_{number}", process.problem if process else "it was not started yet")
            for number, process in enumerate(self._processes)
        ]
        reports = {number: process.report for number, process in self._running().items()}
        return [
            Condition("stopping", "the program is to stop" if self._stopping else None),
            Condition("preparation", self._preparation),
            *processes,
            Condition("broker", _joined({number: report.broker_problem for number, report in reports.items()})),
            Condition("storage", _joined({number: report.storage_problem for number, report in reports.items()})),
        ]

    def _running(self) -> dict[int, _Process]:
        return {number: process for number, process in enumerate(self._processes) if process and process.running}


def _joined(problems: dict[int, str | None]) -> str | None:
    return "; ".join(f"process {number}: {problem}" for number, problem in problems.items() if problem) or None
