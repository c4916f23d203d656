"""What is known of a worker program and its processes, for those who watch it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry

from provgate_workers.metrics import ProgramMetrics
from provgate_workers.program.child_order import ChildReport
from provgate_workers.program.readiness import ProgramReadiness
from provgate_workers.program.shared_metrics import SharedMetrics, shared_metrics


class ProgramWatch:
    """Is told what becomes of the processes, and keeps readiness and metrics of the program.

    Args:
        process_count: how many processes the program has.
        registry: where the metrics are shown.
        shared: where the processes keep their figures.

    Attributes:
        readiness: whether the program lives and can store packages.
        registry: as given.
    """

    def __init__(self, process_count: int, registry: CollectorRegistry, shared: SharedMetrics) -> None:
        self.readiness = ProgramReadiness(process_count)
        self.registry = registry
        self._metrics = ProgramMetrics(registry)
        self._shared = shared

    def environment(self, number: int) -> dict[str, str]:
        """Returns what a process that is about to start is to find in its environment."""
        return self._shared.environment(number)

    def started(self, number: int) -> None:
        """Notes that a process was started."""
        self.readiness.started(number)
        self._metrics.processes.inc()

    def reported(self, number: int, report: ChildReport) -> None:
        """Notes what a process reports."""
        self.readiness.reported(number, report)

    def ended(self, number: int) -> None:
        """Notes that a process has ended."""
        self.readiness.ended(number)
        self._metrics.processes.dec()
        self._shared.ended(number)

    def restarting(self) -> None:
        """Notes that a process that nobody asked to end is started again."""
        self._metrics.restarts.inc()

    def stopping(self) -> None:
        """Notes that the program was told to stop."""
        self.readiness.stopping()


@contextmanager
def program_watch(process_count: int) -> Iterator[ProgramWatch]:
    """Has a program watched for the time of a block."""
    registry = CollectorRegistry()
    with shared_metrics(registry) as shared:
        yield ProgramWatch(process_count, registry, shared)
