"""One of the processes of a worker program: `python -m provgate_workers.child`, started by the supervisor alone."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import Final

from prometheus_client import CollectorRegistry
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from provgate_broker.errors import TopologyError
from provgate_broker.loop_errors import tell_network_errors_shortly
from provgate_config.garbage_collection import collect_seldom
from provgate_config.logs import set_up_logging
from provgate_config.outage import Outage
from provgate_storage.errors import RetryableStorageError, SchemaMismatchError
from provgate_storage.local import LocalStorage
from provgate_telemetry.statsd import Durations, DurationSender
from provgate_workers.child_order import FATAL_EXIT_CODE, ChildOrder, ChildReport
from provgate_workers.configuration import configuration_of
from provgate_workers.host import RangeHost
from provgate_workers.measured_storage import MeasuredStorage
from provgate_workers.metrics import WorkerMetrics
from provgate_workers.reporting import reporting
from provgate_workers.shared_metrics import share_figures
from provgate_workers.stopping import completed

logger = logging.getLogger(__name__)

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
    tell_network_errors_shortly()
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
