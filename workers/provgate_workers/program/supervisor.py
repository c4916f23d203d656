"""The program around the processes that host the range workers."""

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
from provgate_workers.program.child_order import FATAL_EXIT_CODE, ChildOrder, ChildReport
from provgate_workers.program.shared_metrics import DIRECTORY_VARIABLE
from provgate_workers.program.watch import ProgramWatch
from provgate_workers.settings import WorkerConfiguration

logger = logging.getLogger(__name__)

_RESTART_FIRST_S: Final = 0.2
_RESTART_MAX_S: Final = 5.0

# A process that lived so long ends a row of deaths: the next one is restarted soon.
_SETTLED_AFTER_S: Final = 30.0


class Supervisor:
    """Keeps the processes of a program running. Belongs to one event loop.

    Args:
        configuration: of the program.
        log_level, log_format: what `set_up_logging` takes.
        ready_file: is made when every consumer of every process is registered, and removed at the end.
        statsd: where processes send durations to; None for nowhere.
        watch: is told what becomes of the processes.
    """

    def __init__(
        self,
        configuration: WorkerConfiguration,
        log_level: str,
        log_format: str,
        ready_file: Path | None,
        statsd: str | None,
        watch: ProgramWatch,
    ) -> None:
        self._configuration = configuration
        self._log_level = log_level
        self._log_format = log_format
        self._ready_file = ready_file
        self._statsd = statsd
        self._watch = watch
        self._unready = set(range(len(configuration.assignments)))
        self._children: dict[int, Process] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Starts the processes and restarts what dies, until `stop` is set; returns when all have ended.

        Raises:
            FatalError: a process cannot work at all; the others have been stopped.
        """
        fatal: Exception | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(len(self._configuration.assignments)):
                    group.create_task(self._keep(number, stop))
                await stop.wait()
                self._watch.stopping()
                self._stop_children()
        except* FatalError as errors:
            fatal = errors.exceptions[0]
        finally:
            self._stop_children()
            await asyncio.gather(*(child.wait() for child in self._children.values()))
            self._remove_ready_file()
        if fatal is not None:
            raise fatal

    def kill(self) -> None:
        """Kills the processes, for somebody who does not want to wait."""
        for child in self._children.values():
            if child.returncode is None:
                child.kill()

    async def _keep(self, number: int, stop: asyncio.Event) -> None:
        death_count = 0
        while not stop.is_set():
            started_at = time.monotonic()
            code = await self._run_child(number, stop)
            if stop.is_set():
                return
            if code == FATAL_EXIT_CODE:
                raise FatalError("the workers cannot work; the log says why")
            death_count = 0 if time.monotonic() - started_at > _SETTLED_AFTER_S else death_count + 1
            self._watch.restarting()
            wait_s = min(_RESTART_FIRST_S * 2**death_count, _RESTART_MAX_S)
            logger.error(
                "worker process %d ended with %d; it is started again in %.1f s",
                number,
                code,
                wait_s,
                extra={"action": "workers.restart", "number": number, "exit_code": code, "wait_s": wait_s},
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), wait_s)

    async def _run_child(self, number: int, stop: asyncio.Event) -> int:
        # -P: the directory that the program was started in is no place to import from.
        command = (sys.executable, "-P", "-m", "provgate_workers.program.child")
        inherited = {name: value for name, value in os.environ.items() if name.upper() != DIRECTORY_VARIABLE}
        environment = inherited | self._watch.environment(number)
        child = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, env=environment)
        self._children[number] = child
        self._watch.started(number)
        if child.stdin is None or child.stdout is None:
            raise FatalError("a worker process has no pipes")
        child.stdin.write(self._order(number).line())
        if stop.is_set():
            # It was not there yet when all others were told.
            child.stdin.close()
        await self._read_reports(number, child.stdout)
        code = await child.wait()
        self._watch.ended(number)
        return code

    async def _read_reports(self, number: int, lines: asyncio.StreamReader) -> None:
        while not lines.at_eof():
            try:
                line = await lines.readline()
            except ValueError:
                # What a library prints there may be longer than a line can be.
                continue
            self._note_report(number, line)

    def _order(self, number: int) -> ChildOrder:
        return ChildOrder(self._configuration.settings, number, self._log_level, self._log_format, self._statsd)

    def _note_report(self, number: int, line: bytes) -> None:
        # A library may print something there.
        with suppress(msgspec.MsgspecError):
            report = ChildReport.of_line(line)
            self._watch.reported(number, report)
            if report.registered:
                self._note_ready(number)

    def _note_ready(self, number: int) -> None:
        if number in self._unready:
            self._unready.discard(number)
            if not self._unready:
                logger.info("ready: every consumer is registered", extra={"action": "workers.ready"})
                if self._ready_file is not None:
                    write_ready_file(self._ready_file, str(os.getpid()))

    def _stop_children(self) -> None:
        for child in self._children.values():
            if child.stdin is not None:
                child.stdin.close()

    def _remove_ready_file(self) -> None:
        if self._ready_file is not None:
            self._ready_file.unlink(missing_ok=True)
