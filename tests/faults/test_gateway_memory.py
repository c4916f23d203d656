"""The memory of a gateway under loads that are far over its bounds, and after them."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import grpc
import pytest

from provgate.v1 import provenance_storage_pb2 as pb2
from provgate_stack.programs import GatewayProgram
from provgate_stack.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack
from tests.faults.footprint import MIB, Footprint
from tests.faults.heavy_writes import HeavyWrites
from tests.faults.queues import message_count
from tests.integration.gateway_calls import connected, eventually

logger = logging.getLogger(__name__)

pytestmark = [pytest.mark.faults, pytest.mark.long]

# What docs/operations.md says a gateway takes at most with its settings as they are.
DOCUMENTED_BYTES: Final = 560 * MIB
PEAK_MAX_BYTES: Final = int(1.3 * DOCUMENTED_BYTES)

# What a gateway has after a burst beside what it began with: caches, and what its allocator cannot give back.
LEFT_MAX_BYTES: Final = 64 * MIB

READ_MAX_S: Final = 1.0
FIRST: Final = pb2.ContentFindFirstRequest(id=b"\x01" * 20)


@dataclass
class Probe:
    """Makes unary reads one after the other on a thread, as another client would. A context manager."""

    program: GatewayProgram
    took_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _ending: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()

    def _read(self) -> None:
        with connected(self.program.address) as (_, stub):
            while not self._ending.wait(0.1):
                began_at = time.monotonic()
                try:
                    stub.ContentFindFirst(FIRST, timeout=20)
                except grpc.RpcError as error:
                    self.failures.append(repr(error))
                self.took_s.append(time.monotonic() - began_at)

    def check(self) -> None:
        assert not self.failures
        assert max(self.took_s) < READ_MAX_S, f"{sorted(self.took_s)[-5:]} of {len(self.took_s)}"


def peak_bytes(program: GatewayProgram) -> int:
    status = Path(f"/proc/{program.pid}/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def load(program: GatewayProgram, name: str, call_count: int, timeout_s: float) -> Counter[str]:
    """Puts a load on a gateway, checks what holds meanwhile and afterwards, and returns how its calls ended."""
    before = Footprint.of(program.pid)
    with Probe(program) as probe, HeavyWrites(program.address, name, call_count, timeout_s) as writes:
        outcomes = writes.outcomes()
    peak = peak_bytes(program)
    log = program.log_path.read_text(encoding="utf-8")
    reads = sorted(probe.took_s)
    logger.info(
        "%s: %d to %d MiB; %s; %d reads, slowest %.2f s",
        name,
        before.memory_bytes / MIB,
        peak / MIB,
        dict(outcomes),
        len(reads),
        reads[-1],
    )
    assert peak <= PEAK_MAX_BYTES, f"{peak / MIB:.0f} MiB; {outcomes}"
    probe.check()
    assert "lost" not in log
    eventually(
        lambda: Footprint.of(program.pid).memory_bytes < before.memory_bytes + LEFT_MAX_BYTES,
        "memory goes back",
        timeout_s=30,
    )
    logger.info("afterwards: %d MiB", Footprint.of(program.pid).memory_bytes / MIB)
    return outcomes


def test_300_calls_of_a_message_of_4_mib(small_stack: Stack, rabbitmq_node: RabbitMqNode, broker_url: str) -> None:
    small_stack.start_workers()
    program = small_stack.start_gateway()
    outcomes = load(program, "contents", 300, 600.0)
    assert outcomes["OK"] >= 30
    assert all(name == "OK" or name.startswith("RESOURCE_EXHAUSTED ") for name in outcomes)
    eventually(lambda: message_count(rabbitmq_node, broker_url) == 0, "all is stored", timeout_s=60)


def test_1000_calls_without_workers(small_stack: Stack) -> None:
    workers = small_stack.start_workers()
    program = small_stack.start_gateway(wait_min=20.0, wait_per_batch=0)
    workers.stop()
    try:
        outcomes = load(program, "contents", 1000, 120.0)
    finally:
        workers.cont()
    assert all(name in ("RESOURCE_EXHAUSTED FLOW_CONTROL", "DEADLINE_EXCEEDED NO_PROGRESS") for name in outcomes)


def test_12_calls_of_2000000_empty_paths(small_stack: Stack) -> None:
    small_stack.start_workers()
    program = small_stack.start_gateway()
    assert load(program, "paths", 12, 120.0) == {"INVALID_ARGUMENT TOO_MANY_ENTRIES": 12}
