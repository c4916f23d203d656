"""The memory of a gateway under loads that are far over its bounds, and after them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import grpc
import pytest

from provgate.v1 import provenance_storage_pb2 as pb2
from provgate_stack.processes.programs import GatewayProgram
from provgate_stack.stack import Stack
from tests.faults.footprint import MIB, Footprint
from tests.faults.heavy_writes import HeavyWrites
from tests.support.gateway_calls import connected
from tests.support.polling import eventually
from tests.support.watch_port import value

logger = logging.getLogger(__name__)

pytestmark = [pytest.mark.faults, pytest.mark.long]

# What docs/operations.md says a gateway takes at most with its settings as they are.
DOCUMENTED_BYTES: Final = 560 * MIB
PEAK_MAX_BYTES: Final = int(1.3 * DOCUMENTED_BYTES)

# What a gateway has after a burst beside what it began with: caches, and what its allocator cannot give back.
LEFT_MAX_BYTES: Final = 64 * MIB

# That a message has too many entries is the caller's fault; nothing else is.
EXPECTED: Final = ("OK", "RESOURCE_EXHAUSTED ", "INVALID_ARGUMENT TOO_MANY_ENTRIES")

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


@contextmanager
def loaded(program: GatewayProgram, name: str, call_count: int) -> Iterator[HeavyWrites]:
    """Puts a load on a gateway; at the end, checks what has to hold meanwhile and afterwards."""
    before = Footprint.of(program.pid)
    with Probe(program) as probe, HeavyWrites(program.address, name, call_count) as writes:
        yield writes
        outcomes = writes.outcomes()
    peak, reads = peak_bytes(program), sorted(probe.took_s)
    told = f"{call_count} calls of {name}: {before.memory_bytes // MIB} to {peak // MIB} MiB; {dict(outcomes)}; "
    told += f"{len(reads)} reads, slowest {reads[-1]:.2f} s"
    logger.info("%s", told)
    assert all(outcome.startswith(EXPECTED) for outcome in outcomes), told
    assert peak <= PEAK_MAX_BYTES, told
    assert not probe.failures, told
    assert reads[-1] < READ_MAX_S, told
    assert "lost" not in program.log_path.read_text(encoding="utf-8")
    eventually(
        lambda: Footprint.of(program.pid).memory_bytes < before.memory_bytes + LEFT_MAX_BYTES,
        "memory goes back",
        timeout_s=30,
    )
    logger.info("afterwards: %d MiB", Footprint.of(program.pid).memory_bytes / MIB)


def test_300_calls_of_a_message_of_4_mib(small_stack: Stack) -> None:
    small_stack.start_workers()
    with loaded(small_stack.start_gateway(), "contents", 300) as writes:
        # As many as are in hand at once.
        assert writes.outcomes()["OK"] >= 10


def test_1000_calls_while_workers_are_suspended(small_stack: Stack) -> None:
    workers = small_stack.start_workers()
    program = small_stack.start_gateway(max_calls=1100, wait_per_batch=60.0)
    workers.stop()
    try:
        with loaded(program, "long paths", 1000) as writes:
            unacked = "provgate_gateway_unacked_bytes"
            eventually(lambda: value(program.metrics_address, unacked) > 240 * MIB, "the budget is used up", 60)
            workers.cont()
            assert writes.outcomes()["OK"] >= 60
    finally:
        workers.cont()


def test_12_calls_of_2000000_empty_paths(small_stack: Stack) -> None:
    small_stack.start_workers()
    with loaded(small_stack.start_gateway(), "empty paths", 12) as writes:
        assert writes.outcomes() == {"INVALID_ARGUMENT TOO_MANY_ENTRIES": 12}
