"""The figures of all processes of a program, shown as one.

Each process keeps its figures in files that are mapped into its memory, and the program reads them when somebody looks:
nothing is sent, and what a killed process has counted stays. The files go by the number of the process, not by its
pid: the process that takes its place counts on in them, so that there are never more of them.

prometheus_client (its multiprocess mode) finds them by an environment variable, which the program sets for its
processes alone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from prometheus_client import CollectorRegistry, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

logger = logging.getLogger(__name__)

DIRECTORY_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"

# More than all series of a process take (a test counts them). A file that had to grow would have holes, and where the
# disk is full a process that writes into one is killed (SIGBUS).
FILE_BYTES: Final = {"counter": 256 * 1024, "histogram": 512 * 1024, "gauge_livesum": 64 * 1024}


class SharedMetrics:
    """The files of the processes of one program.

    Args:
        directory: that they are in; None where there is none.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def environment(self, number: int) -> dict[str, str]:
        """Returns what a process is to find in its environment, and makes room for its figures.

        Where there is no space for them, the process keeps its figures to itself.
        """
        if self._directory is None:
            return {}
        try:
            for kind, size_bytes in FILE_BYTES.items():
                _reserve(self._directory / f"{kind}_{number}.db", size_bytes)
        except OSError as error:
            logger.warning(
                "the figures of worker process %d are not shown: %s",
                number,
                error,
                extra={"action": "metrics.skip", "number": number, "reason": str(error)},
            )
            return {}
        return {DIRECTORY_VARIABLE: str(self._directory)}

    def ended(self, number: int) -> None:
        """Forgets the gauges of a process that has ended: its connections, the bytes it had in hand."""
        if self._directory is not None:
            mark_process_dead(number, str(self._directory))  # type: ignore[no-untyped-call]  # it has no types


@contextmanager
def shared_metrics(registry: CollectorRegistry) -> Iterator[SharedMetrics]:
    """Has a registry show the figures of processes for the time of a block.

    The directory goes at its end. That of a program that was killed stays, and harms nobody. Where none can be made,
    the figures of the processes are not shown: they are no reason not to work.
    """
    directory = _directory()
    if directory is None:
        yield SharedMetrics(None)
        return
    with directory as name:
        collector = MultiProcessCollector(registry, path=name)  # type: ignore[no-untyped-call]  # it has no types
        try:
            yield SharedMetrics(Path(name))
        finally:
            registry.unregister(collector)


def _directory() -> TemporaryDirectory[str] | None:
    try:
        return TemporaryDirectory(prefix="provgate-workers-", ignore_cleanup_errors=True)
    except OSError as error:
        logger.warning(
            "the figures of worker processes are not shown: %s",
            error,
            extra={"action": "metrics.skip", "reason": str(error)},
        )
        return None


def share_figures(number: int) -> None:
    """Has this process, the one of a number, keep its figures where its program looks for them, if it looks.

    Called once, before any metric is made.
    """
    if DIRECTORY_VARIABLE in os.environ:
        values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]  # it has no types


def _reserve(path: Path, size_bytes: int) -> None:
    # What is there stays as it is.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
    finally:
        os.close(descriptor)
