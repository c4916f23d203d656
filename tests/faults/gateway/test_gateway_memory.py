"""The memory of a gateway under loads that are far over its bounds, and after them."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

import pytest

from provgate.v1 import provenance_storage_pb2 as pb2
from provgate_stack.processes.programs import GatewayProgram
from tests.faults.footprint import MIB, Footprint, peak_bytes
from tests.faults.hostile_clients import write_heavily
from tests.faults.system import System
from tests.integration.gateway_calls import connected, eventually
from tests.watching import value

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


@contextmanager
def reading(address: str) -> Iterator[list[float]]:
    """Makes unary reads one after the other, as another client would, and gives how long each took."""
    took_s: list[float] = []
    ending = threading.Event()

    def read() -> None:
        with connected(address) as (_, stub):
            while not ending.wait(0.1):
                began_at = time.monotonic()
                stub.ContentFindFirst(FIRST, timeout=20)
                took_s.append(time.monotonic() - began_at)

    with ThreadPoolExecutor(1) as thread:
        reads = thread.submit(read)
        try:
            yield took_s
        finally:
            ending.set()
        # Raises what a read has raised.
        reads.result()


@contextmanager
def loaded(program: GatewayProgram, name: str, call_count: int) -> Iterator[Future[Counter[str]]]:
    """Puts a load on a gateway; at the end, checks what has to hold meanwhile and afterwards."""
    before = Footprint.of(program.pid)
    with reading(program.address) as took_s, ThreadPoolExecutor(1) as thread:
        writes = thread.submit(write_heavily, program.address, name, call_count)
        yield writes
        outcomes = writes.result()
    peak, reads = peak_bytes(program.pid), sorted(took_s)
    figures = f"{call_count} calls of {name}: {before.memory_bytes // MIB} to {peak // MIB} MiB; {dict(outcomes)}; "
    figures += f"{len(reads)} reads, slowest {reads[-1]:.2f} s"
    logger.info("%s", figures)
    assert all(outcome.startswith(EXPECTED) for outcome in outcomes), figures
    assert peak <= PEAK_MAX_BYTES, figures
    assert reads[-1] < READ_MAX_S, figures
    assert "lost" not in program.log_path.read_text(encoding="utf-8")
    eventually(
        lambda: Footprint.of(program.pid).memory_bytes < before.memory_bytes + LEFT_MAX_BYTES,
        "memory goes back",
        timeout_s=30,
    )
    logger.info("afterwards: %d MiB", Footprint.of(program.pid).memory_bytes / MIB)


def test_300_calls_of_a_message_of_4_mib(system: System) -> None:
    system.stack.start_workers()
    with loaded(system.stack.start_gateway(), "contents", 300) as writes:
        # As many as are in hand at once.
        assert writes.result()["OK"] >= 10


def test_1000_calls_while_workers_are_suspended(system: System) -> None:
    workers = system.stack.start_workers()
    program = system.stack.start_gateway(max_calls=1100, wait_per_batch=60.0)
    workers.stop()
    try:
        with loaded(program, "long paths", 1000) as writes:
            unacked = "provgate_gateway_unacked_bytes"
            eventually(lambda: value(program.metrics_address, unacked) > 240 * MIB, "the budget is used up", 60)
            workers.cont()
            assert writes.result()["OK"] >= 60
    finally:
        workers.cont()


def test_12_calls_of_2000000_empty_paths(system: System) -> None:
    system.stack.start_workers()
    with loaded(system.stack.start_gateway(), "empty paths", 12) as writes:
        assert writes.result() == {"INVALID_ARGUMENT TOO_MANY_ENTRIES": 12}
