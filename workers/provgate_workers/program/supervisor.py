"""Keeps the processes of a worker program running, and stops them together."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from provgate_runtime.program import write_ready_file
from provgate_workers.errors import FatalError
from provgate_workers.metrics import ProgramMetrics
from provgate_workers.program.messages import FATAL_EXIT_CODE, ChildOrder, ChildReport
from provgate_workers.program.readiness import ProgramReadiness
from provgate_workers.program.shared_metrics import DIRECTORY_VARIABLE, SharedMetrics
from provgate_workers.settings import WorkerConfiguration

logger = logging.getLogger(__name__)

_RESTART_FIRST_S: Final = 0.2
_RESTART_MAX_S: Final = 5.0

# A process that lived this long is restarted soon, however often others died before it.
_SETTLED_AFTER_S: Final = 30.0


class Supervisor:
    """Keeps the processes of a program running. Belongs to one event loop.

    Args:
        configuration: of the program.
        log_level, log_format: what `set_up_logging` takes.
        ready_file: written when every consumer of every process is registered, and removed at the end.
        statsd: where processes send durations to; None for nowhere.
        readiness: notes what becomes of the processes.
        metrics: counts them.
        shared: where the processes keep their metrics.
    """

    def __init__(
        self,
        configuration: WorkerConfiguration,
        log_level: str,
        log_format: str,
        ready_file: Path | None,
        statsd: str | None,
        readiness: ProgramReadiness,
        metrics: ProgramMetrics,
        shared: SharedMetrics,
    ) -> None:
        self._orders = [
            ChildOrder(configuration.settings, number, log_level, log_format, statsd)
            for number in range(len(configuration.assignments))
        ]
        self._ready_file = ready_file
        self._readiness = readiness
        self._metrics = metrics
        self._shared = shared
        self._unready = {order.number for order in self._orders}
        self._children: dict[int, Process] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Starts the processes and restarts those that die, until `stop` is set; returns when all have ended.

        Raises:
            FatalError: a process cannot work at all; the others have been stopped.
        """
        fatal: Exception | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for order in self._orders:
                    group.create_task(self._keep_running(order, stop))
                await stop.wait()
                self._readiness.stopping()
                self._stop_children()
        except* FatalError as errors:
            fatal = errors.exceptions[0]
        finally:
            self._stop_children()
            await asyncio.gather(*(child.wait() for child in self._children.values()))
            if self._ready_file is not None:
                self._ready_file.unlink(missing_ok=True)
        if fatal is not None:
            raise fatal

    def kill(self) -> None:
        """Kills the processes at once."""
        for child in self._children.values():
            if child.returncode is None:
                child.kill()

    async def _keep_running(self, order: ChildOrder, stop: asyncio.Event) -> None:
        death_count = 0
        while not stop.is_set():
            started_at_s = time.monotonic()
            code = await self._run_child(order, stop)
            if stop.is_set():
                return
            if code == FATAL_EXIT_CODE:
                raise FatalError("the workers cannot work; the log says why")
            death_count = 0 if time.monotonic() - started_at_s > _SETTLED_AFTER_S else death_count + 1
            self._metrics.restarts.inc()
            wait_s = min(_RESTART_FIRST_S * 2**death_count, _RESTART_MAX_S)
            logger.error(
                "worker process %d ended with %d; it is started again in %.1f s",
                order.number,
                code,
                wait_s,
                extra={"action": "workers.restart", "number": order.number, "exit_code": code, "wait_s": wait_s},
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), wait_s)

    async def _run_child(self, order: ChildOrder, stop: asyncio.Event) -> int:
        """Runs a process until it ends, and returns its exit code."""
        number = order.number
        # -P: nothing is imported from the directory that the program was started in.
        command = (sys.executable, "-P", "-m", "provgate_workers.program.child")
        inherited = {name: value for name, value in os.environ.items() if name.upper() != DIRECTORY_VARIABLE}
        environment = inherited | self._shared.environment(number)
        child = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, env=environment)
        self._children[number] = child
        self._readiness.started(number)
        self._metrics.processes.inc()
        if child.stdin is None or child.stdout is None:
            raise FatalError("a worker process has no pipes")
        child.stdin.write(order.line())
        if stop.is_set():
            # It was not there yet when the others were stopped.
            child.stdin.close()
        while not child.stdout.at_eof():
            try:
                report = ChildReport.of_line(await child.stdout.readline())
            except (ValueError, msgspec.MsgspecError):
                # A library may print something there, in a line of any length.
                continue
            self._note(number, report)
        code = await child.wait()
        self._readiness.ended(number)
        self._metrics.processes.dec()
        self._shared.ended(number)
        return code

    def _note(self, number: int, report: ChildReport) -> None:
        self._readiness.reported(number, report)
        if report.registered and number in self._unready:
            self._unready.remove(number)
            if not self._unready:
                logger.info("ready: every consumer is registered", extra={"action": "workers.ready"})
                if self._ready_file is not None:
                    write_ready_file(self._ready_file, str(os.getpid()))

    def _stop_children(self) -> None:
        for child in self._children.values():
            if child.stdin is not None:
                child.stdin.close()
