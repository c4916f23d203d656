"""The program around the processes: what starts, what is started again, and that all of it ends."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from provgate_broker.settings import RabbitMqSettings
from provgate_workers.errors import FatalError
from provgate_workers.metrics import ProgramMetrics
from provgate_workers.program import supervisor as supervisor_module
from provgate_workers.program.messages import FATAL_EXIT_CODE, ChildOrder
from provgate_workers.program.readiness import ProgramReadiness
from provgate_workers.program.shared_metrics import shared_metrics
from provgate_workers.program.supervisor import Supervisor
from provgate_workers.settings import configuration_of
from tests.support.polling import until

# Writes its order down, says that it is ready, and ends when standard input does.
OBEDIENT = """
import sys
line = sys.stdin.buffer.readline()
with open(sys.argv[1], "ab") as orders:
    orders.write(line)
print('{"registered": true}', flush=True)
sys.stdin.buffer.read()
"""

Spawn = Callable[..., Coroutine[Any, Any, Process]]


def spawning(script: str, *arguments: str, first: Callable[[], Coroutine[Any, Any, None]] | None = None) -> Spawn:
    """Returns what starts a script in place of a worker process, once `first` has ended."""
    start = asyncio.create_subprocess_exec

    async def spawn(*_command: str, stdin: int, stdout: int, env: Mapping[str, str]) -> Process:
        if first is not None:
            await first()
        return await start(sys.executable, "-c", script, *arguments, stdin=stdin, stdout=stdout, env=env)

    return spawn


@contextmanager
def new_supervisor(ready_file: Path | None = None, processes: int = 2) -> Iterator[Supervisor]:
    settings = RabbitMqSettings(processes=processes, storage_config={"cls": "postgresql", "db": ""})
    registry = CollectorRegistry()
    with shared_metrics(registry) as shared:
        yield Supervisor(
            configuration_of(settings),
            "info",
            "text",
            ready_file,
            None,
            ProgramReadiness(processes),
            ProgramMetrics(registry),
            shared,
        )


def test_it_is_ready_when_all_processes_are_and_ends_with_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    orders, ready_file = tmp_path / "orders", tmp_path / "ready"
    monkeypatch.setattr(asyncio, "create_subprocess_exec", spawning(OBEDIENT, str(orders)))

    async def test() -> None:
        stop = asyncio.Event()
        with new_supervisor(ready_file) as supervisor:
            running = asyncio.create_task(supervisor.run(stop))
            await until(ready_file.exists)
            stop.set()
            await asyncio.wait_for(running, 10)

    asyncio.run(test())
    assert {ChildOrder.of_line(line).number for line in orders.read_bytes().splitlines()} == {0, 1}
    assert not ready_file.exists()


def test_a_process_that_comes_when_all_others_were_told_to_stop_stops_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def test() -> None:
        stop = asyncio.Event()
        begun = asyncio.Event()

        async def first() -> None:
            begun.set()
            await stop.wait()
            # So that whoever waits for it as well has gone on.
            for _ in range(10):
                await asyncio.sleep(0)

        spawn = spawning(OBEDIENT, str(tmp_path / "orders"), first=first)
        monkeypatch.setattr(asyncio, "create_subprocess_exec", spawn)
        with new_supervisor(processes=1) as supervisor:
            running = asyncio.create_task(supervisor.run(stop))
            await begun.wait()
            stop.set()
            try:
                await asyncio.wait_for(asyncio.shield(running), 10)
            finally:
                supervisor.kill()
                await running

    asyncio.run(test())


def test_a_process_that_dies_is_started_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    orders = tmp_path / "orders"
    script = OBEDIENT.replace("sys.stdin.buffer.read()", "sys.exit(7)")
    monkeypatch.setattr(asyncio, "create_subprocess_exec", spawning(script, str(orders)))
    monkeypatch.setattr(supervisor_module, "_RESTART_FIRST_S", 0.001)

    async def test() -> None:
        stop = asyncio.Event()
        with new_supervisor(processes=1) as supervisor:
            running = asyncio.create_task(supervisor.run(stop))
            await until(lambda: orders.exists() and len(orders.read_bytes().splitlines()) >= 3)
            stop.set()
            await asyncio.wait_for(running, 10)

    asyncio.run(test())


def test_a_process_that_can_never_work_ends_the_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = OBEDIENT.replace("sys.stdin.buffer.read()", f"sys.exit({FATAL_EXIT_CODE})")
    monkeypatch.setattr(asyncio, "create_subprocess_exec", spawning(script, str(tmp_path / "orders")))
    with new_supervisor() as supervisor, pytest.raises(FatalError):
        asyncio.run(supervisor.run(asyncio.Event()))
