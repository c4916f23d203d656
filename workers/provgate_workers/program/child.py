"""A process of a worker program: `python -m provgate_workers.program.child`. Only the supervisor starts it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress
from typing import Final

from prometheus_client import CollectorRegistry
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from provgate_broker.amqp.pika_workarounds import log_network_errors_briefly
from provgate_broker.errors import TopologyError
from provgate_runtime.logs import set_up_logging
from provgate_runtime.outage import Outage
from provgate_runtime.program import collect_seldom
from provgate_runtime.watch.statsd import DurationSender
from provgate_storage.database.local import LocalStorage
from provgate_storage.errors import RetryableStorageError, SchemaMismatchError
from provgate_workers.consume.host import RangeHost
from provgate_workers.metrics import MeasuredStorage, WorkerMetrics
from provgate_workers.program.messages import FATAL_EXIT_CODE, REPORT_INTERVAL_S, ChildOrder, ChildReport
from provgate_workers.program.shared_metrics import share_metrics
from provgate_workers.program.stopping import completed
from provgate_workers.settings import configuration_of

logger = logging.getLogger(__name__)

STATSD_PREFIX: Final = "provgate.workers"

_STDIN: Final = 0
_STDOUT: Final = 1
_BACKOFF_FIRST_S: Final = 0.5
_BACKOFF_MAX_S: Final = 10.0

# A storage call that does not end by then is not waited for when the process stops.
_STOP_S: Final = 25.0


def main() -> int:
    """Reads the order, works until it is to stop, and returns the exit code."""
    # A Ctrl-C at a terminal reaches all processes of a program; only the supervisor decides what follows.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = ChildOrder.of_line(sys.stdin.buffer.readline())
    set_up_logging(order.log_level, order.log_format)
    collect_seldom()
    share_metrics(order.number)
    code = 0
    try:
        asyncio.run(_work(order))
    except* (SchemaMismatchError, TopologyError) as errors:
        reason = str(errors.exceptions[0])
        logger.error("%s", reason, extra={"action": "workers.fail", "reason": reason})
        code = FATAL_EXIT_CODE
    return code


async def _work(order: ChildOrder) -> None:
    log_network_errors_briefly()
    stop = _stop_event()
    configuration = configuration_of(order.settings)
    storage = configuration.storage()
    reporter = _Reporter()
    reporting = asyncio.create_task(reporter.run())
    try:
        if not await completed(_open(storage), stop):
            return
        metrics = WorkerMetrics(CollectorRegistry())
        with DurationSender(order.statsd, STATSD_PREFIX) as durations:
            reporter.host = RangeHost(
                configuration,
                configuration.assignments[order.number],
                MeasuredStorage(storage, metrics, durations.send),
                f"provgate-workers {os.getpid()}",
                metrics,
                reporter.news,
            )
            await reporter.host.run(stop)
    finally:
        reporting.cancel()
    storage.close()


class _Reporter:
    """Writes a report to standard output every second, and when there is news.

    Attributes:
        host: what it reports of; None until the storage is open.
        news: set it to report at once.
    """

    def __init__(self) -> None:
        self.host: RangeHost | None = None
        self.news = asyncio.Event()
        # A suspended supervisor does not read. That must not suspend this process too.
        os.set_blocking(_STDOUT, False)

    async def run(self) -> None:
        """Reports until it is cancelled."""
        while True:
            report = self.host.report() if self.host else ChildReport(storage_problem="it is not open yet")
            # The supervisor that would read it may be gone; the end of standard input says so too.
            with suppress(BrokenPipeError, BlockingIOError):
                os.write(_STDOUT, report.line())
            self.news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(REPORT_INTERVAL_S):
                    await self.news.wait()


async def _open(storage: LocalStorage) -> None:
    """Opens the storage as soon as it can be reached."""
    outage = Outage(logger, action="storage.open")
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(RetryableStorageError),
        wait=wait_random_exponential(multiplier=_BACKOFF_FIRST_S, max=_BACKOFF_MAX_S),
    )
    async for attempt in retrying:
        with attempt:
            try:
                await asyncio.to_thread(storage.open)
            except RetryableStorageError as error:
                outage.failed("the storage cannot be opened", error)
                raise
    outage.ended("the storage is open")


def _stop_event() -> asyncio.Event:
    """Returns an event that is set when standard input ends or SIGTERM comes."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_stop() -> None:
        loop.remove_reader(_STDIN)
        if not stop.is_set():
            stop.set()
            loop.call_later(_STOP_S, _leave)

    loop.add_signal_handler(signal.SIGTERM, on_stop)
    loop.add_reader(_STDIN, on_stop)
    return stop


def _leave() -> None:
    logger.warning(
        "a storage call does not end: the process ends without it, and its packages go back to the broker",
        extra={"action": "workers.leave"},
    )
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
