"""A process of a worker program: `python -m provgate_workers.program.child`. Only the supervisor starts it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from prometheus_client import CollectorRegistry
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from provgate_broker.amqp.pika_workarounds import log_network_errors_briefly
from provgate_broker.errors import TopologyError
from provgate_runtime.logs import set_up_logging
from provgate_runtime.outage import Outage
from provgate_runtime.program import collect_seldom
from provgate_runtime.watch.statsd import Durations, DurationSender
from provgate_storage.database.local import LocalStorage
from provgate_storage.errors import RetryableStorageError, SchemaMismatchError
from provgate_workers.consume.host import RangeHost
from provgate_workers.metrics import MeasuredStorage, WorkerMetrics
from provgate_workers.program.child_order import FATAL_EXIT_CODE, REPORT_INTERVAL_S, ChildOrder, ChildReport
from provgate_workers.program.shared_metrics import share_figures
from provgate_workers.program.stopping import completed
from provgate_workers.settings import configuration_of

logger = logging.getLogger(__name__)

_STDOUT: Final = 1


class Reporter:
    """Reports every second, and when it is asked to. Belongs to one event loop.

    Args:
        write: takes a report, encoded.
        first: what is reported until there is something to follow.
    """

    def __init__(self, write: Callable[[bytes], None], first: ChildReport) -> None:
        self._write = write
        self._report: Callable[[], ChildReport] = lambda: first

    def follow(self, report: Callable[[], ChildReport]) -> None:
        """Reports what `report` returns from now on."""
        self._report = report
        self.report_now()

    def report_now(self) -> None:
        """Reports without waiting for the next second."""
        self._write(self._report().line())

    async def run(self) -> None:
        """Reports until it is cancelled."""
        while True:
            self.report_now()
            await asyncio.sleep(REPORT_INTERVAL_S)


@asynccontextmanager
async def reporting(first: ChildReport) -> AsyncIterator[Reporter]:
    """Has the process report on its standard output for the time of a block."""
    # A supervisor that does not read, since it is suspended, must not suspend the process too.
    os.set_blocking(_STDOUT, False)
    reporter = Reporter(_say, first)
    running = asyncio.create_task(reporter.run())
    try:
        yield reporter
    finally:
        running.cancel()


def _say(line: bytes) -> None:
    # The supervisor that would have read it may be gone; standard input says so too.
    with suppress(BrokenPipeError, BlockingIOError):
        os.write(_STDOUT, line)


_BACKOFF_FIRST_S: Final = 0.5
_BACKOFF_MAX_S: Final = 10.0

# A storage call that does not end in so many seconds is not waited for when the process stops.
_STOP_S: Final = 25.0

_STDIN: Final = 0

STATSD_PREFIX: Final = "provgate.workers"


def main() -> int:
    """Reads the order, works until told to stop, and returns the exit code."""
    # A Ctrl-C at a terminal reaches all processes of a program; only the supervisor decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = ChildOrder.of_line(sys.stdin.buffer.readline())
    set_up_logging(order.log_level, order.log_format)
    collect_seldom()
    share_figures(order.number)
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
    with DurationSender(order.statsd, STATSD_PREFIX) as durations:
        await _host(order, durations.send, stop)


async def _host(order: ChildOrder, durations: Durations, stop: asyncio.Event) -> None:
    configuration = configuration_of(order.settings)
    storage = configuration.storage()
    async with reporting(ChildReport(storage_problem="it is not open yet")) as reporter:
        if not await completed(_open(storage), stop):
            return
        metrics = WorkerMetrics(CollectorRegistry())
        host = RangeHost(
            configuration,
            configuration.assignments[order.number],
            MeasuredStorage(storage, metrics, durations),
            f"provgate-workers {os.getpid()}",
            metrics,
            reporter.report_now,
        )
        reporter.follow(host.take_stock)
        await host.run(stop)
    storage.close()


async def _open(storage: LocalStorage) -> None:
    """Opens the storage as soon as it can be reached."""
    outage = Outage(logger, action="storage.open")

    async def once() -> None:
        try:
            await asyncio.to_thread(storage.open)
        except RetryableStorageError as error:
            outage.failed("the storage cannot be opened", error)
            raise

    retrying = AsyncRetrying(
        retry=retry_if_exception_type(RetryableStorageError),
        wait=wait_random_exponential(multiplier=_BACKOFF_FIRST_S, max=_BACKOFF_MAX_S),
    )
    await retrying(once)
    outage.ended("the storage is open")


def _stop_event() -> asyncio.Event:
    """Returns what is set when standard input ends or SIGTERM comes."""
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
        "a storage call does not end: it is left alone, and its packages go back to the broker",
        extra={"action": "workers.leave"},
    )
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
