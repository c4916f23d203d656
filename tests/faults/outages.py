"""What clients and operators must see while the broker or a database is out of reach."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import grpc
import psutil
import pytest

from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_stack.processes.process import ChildProgram
from provgate_stack.stack import Stack
from tests.faults.system import NOTICED_S, System, reads
from tests.support.gateway_calls import health
from tests.support.link import Link, Mode
from tests.support.polling import eventually

# What programs may use while they wait. A loop that spins takes a whole core, and logs without end.
IDLE_CORES: Final = 0.3
IDLE_LINES: Final = 50


@contextmanager
def broker_away(system: System, link: Link, *, stopped: bool) -> Iterator[None]:
    """Stops the broker, which takes its time, or else has the link to it refuse every connection."""
    if stopped:
        system.node.stop()
    else:
        link.mode = Mode.REFUSE
        link.reset()
    try:
        yield
    finally:
        link.mode = Mode.PASS
        if stopped:
            system.node.start()


def assert_unavailable(stack: Stack, stub: ProvenanceStorageStub) -> None:
    """Waits until health says that the storage is away, and checks that reads say that they may be tried again."""
    with grpc.insecure_channel(stack.address) as channel:
        eventually(lambda: health(channel, "provgate.storage") == "NOT_SERVING", "health knows", NOTICED_S)
        assert health(channel) == "NOT_SERVING"
        assert health(channel, "provgate.broker") == "SERVING"
    for outcome in reads(stub):
        assert (outcome.code.name, outcome.reason) == ("UNAVAILABLE", "STORAGE_UNAVAILABLE")
        assert "RetryInfo" in outcome.details


def assert_idle(stack: Stack, duration_s: float) -> None:
    """Checks that the programs do next to nothing, and log little, for this long."""
    programs: list[ChildProgram] = [*stack.workers, *stack.gateways]
    before = [(_cpu_s(program), line_count(program)) for program in programs]
    time.sleep(duration_s)
    for program, (cpu_before_s, lines_before) in zip(programs, before, strict=True):
        assert _cpu_s(program) - cpu_before_s < IDLE_CORES * duration_s, program.command
        assert line_count(program) - lines_before < IDLE_LINES, program.command


def _cpu_s(program: ChildProgram) -> float:
    process = psutil.Process(program.pid)
    return sum(sum(each.cpu_times()[:2]) for each in (process, *process.children(recursive=True)))


def line_count(program: ChildProgram) -> int:
    """Returns how many lines a program has logged."""
    return len(program.log_path.read_text().splitlines())


def wait_for_trouble(stack: Stack, text: str) -> None:
    """Returns when the workers have logged that the storage is in trouble, and why."""
    log = stack.workers[0].log_path
    eventually(lambda: "the storage is in trouble" in log.read_text() and text in log.read_text(), text, NOTICED_S)


away_by_link_or_stopped = pytest.mark.parametrize(
    "stopped", [False, pytest.param(True, marks=pytest.mark.long)], ids=["refused", "stopped"]
)
