"""Shows the metrics of all processes of a program as one.

Each process keeps its metrics in memory-mapped files, and the program reads them for each scrape: nothing is sent, and
what a killed process has counted stays. A file goes by the number of the process, not by its pid: the process that
takes its place counts on in it, so that the number of files does not grow.

This is the multiprocess mode of prometheus_client. It finds the files by an environment variable, which the program
sets for its processes alone.
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

# More than all series of a process take (a test counts them). A file that had to grow would have holes, and on a full
# disk a process that writes into a hole is killed (SIGBUS).
FILE_BYTES: Final = {"counter": 256 * 1024, "histogram": 512 * 1024, "gauge_livesum": 64 * 1024}


class SharedMetrics:
    """The metrics files of the processes of one program.

    Args:
        directory: where the files are; None if there is none.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def environment(self, number: int) -> dict[str, str]:
        """Returns variables for the environment of a process, and reserves its files.

        If there is no space for them, the process keeps its metrics to itself.
        """
        if self._directory is None:
            return {}
        try:
            for kind, size_bytes in FILE_BYTES.items():
                # What a process of that number counted before stays.
                path = self._directory / f"{kind}_{number}.db"
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.posix_fallocate(descriptor, 0, size_bytes)
                finally:
                    os.close(descriptor)
        except OSError as error:
            logger.warning(
                "the metrics of worker process %d are not shown: %s",
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
    """Shows the metrics of processes in a registry inside the block.

    The directory is removed at its end; that of a killed program stays, and does no harm. If none can be made, the
    metrics of the processes are not shown, and the program works all the same.
    """
    try:
        directory = TemporaryDirectory(prefix="provgate-workers-", ignore_cleanup_errors=True)
    except OSError as error:
        logger.warning(
            "the metrics of worker processes are not shown: %s",
            error,
            extra={"action": "metrics.skip", "reason": str(error)},
        )
        yield SharedMetrics(None)
        return
    with directory as name:
        collector = MultiProcessCollector(registry, path=name)  # type: ignore[no-untyped-call]  # it has no types
        try:
            yield SharedMetrics(Path(name))
        finally:
            registry.unregister(collector)


def share_metrics(number: int) -> None:
    """Makes this process, which has a number, keep its metrics in the files of its program, if there are any.

    Call it once, before any metric is made.
    """
    if DIRECTORY_VARIABLE in os.environ:
        values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]  # it has no types
