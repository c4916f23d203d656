"""Calls over the bounds of a gateway are refused or wait, and the calls within the bounds go on."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from statistics import median
from typing import Any, Final

import grpc
import pytest

from provgate.v1 import provenance_storage_pb2 as pb2
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_stack.processes.programs import GatewayProgram
from tests.faults.footprint import MIB, Footprint, peak_bytes
from tests.faults.hostile_clients import write_heavily
from tests.faults.system import System
from tests.support.gateway_calls import OpenWrite, check_exhausted, connected, contents, outcome_of_unary, write
from tests.support.polling import eventually
from tests.support.scripted_workers import ScriptedWorkers, in_full, silent
from tests.support.watch_port import value

logger = logging.getLogger(__name__)

pytestmark = pytest.mark.faults

MAX_CALLS = 3
MAX_UNACKED = 100
MAX_UNACKED_PER_CALL = 60
# Long enough for a busy machine to come to the bound, and no longer: the calls wait for all of it.
SHORT_S = 2.0

FIRST = pb2.ContentFindFirstRequest(id=b"\x01" * 20)


@pytest.fixture(scope="module")
def gateway(scripted_system: System) -> Iterator[ProvenanceStorageStub]:
    program = scripted_system.stack.start_gateway(
        batch_size=10,
        max_calls=MAX_CALLS,
        max_unacked_entries=MAX_UNACKED,
        max_unacked_entries_per_call=MAX_UNACKED_PER_CALL,
    )
    with connected(program.address) as (_, stub):
        yield stub
    assert program.terminate() == 0
    assert " ERROR " not in program.log_path.read_text(encoding="utf-8")


@pytest.fixture
def stub(gateway: ProvenanceStorageStub, scripted_workers: ScriptedWorkers) -> ProvenanceStorageStub:
    # The calls of the test before may still be ending.
    eventually(lambda: outcome_of_unary(lambda: gateway.ContentFindFirst(FIRST, timeout=5)).ok, "a call is admitted")
    return gateway


def test_one_call_too_many_is_turned_away(stub: ProvenanceStorageStub) -> None:
    calls = [OpenWrite(stub) for _ in range(MAX_CALLS)]
    for call in calls:
        call.send(contents(1))
        call.wait_for(lambda progress: progress.acked_count == 1)
    outcome = write(stub.ContentAdd, [contents(1)])
    check_exhausted(outcome, "TOO_MANY_CALLS")
    assert outcome.counts == (0, 0, 0)
    # Reads have bounds of their own.
    assert outcome_of_unary(lambda: stub.ContentFindFirst(FIRST, timeout=5)).ok
    # The calls in flight go on, and their places are free again when they end.
    assert all(call.end().ok for call in calls)
    assert write(stub.ContentAdd, [contents(1)]).ok


def test_calls_that_wait_outlive_the_cancelled_one_before_them(
    stub: ProvenanceStorageStub, scripted_workers: ScriptedWorkers
) -> None:
    scripted_workers.script = silent
    gone = OpenWrite(stub)
    for _ in range(2):
        gone.send(contents(MAX_UNACKED_PER_CALL))
    gone.wait_for(lambda progress: progress.received_count == 2 * MAX_UNACKED_PER_CALL)
    scripted_workers.reset()
    waiting = OpenWrite(stub, timeout_s=60)
    waiting.send(contents(MAX_UNACKED_PER_CALL))
    waiting.wait_for(lambda progress: progress.received_count == MAX_UNACKED_PER_CALL)
    gone.cancel()
    assert waiting.end().counts == (60, 60, 60)


def test_at_its_bound_a_call_is_not_read_further(
    stub: ProvenanceStorageStub, scripted_workers: ScriptedWorkers
) -> None:
    scripted_workers.script = silent
    outcome = write(stub.ContentAdd, [contents(30, start=30 * part) for part in range(5)], timeout_s=SHORT_S)
    assert outcome.code is grpc.StatusCode.DEADLINE_EXCEEDED
    # Two are published, the third was read and waits.
    assert outcome.counts == (90, 60, 0)


def test_a_call_that_others_keep_waiting_may_be_tried_again(
    stub: ProvenanceStorageStub, scripted_workers: ScriptedWorkers
) -> None:
    scripted_workers.script = silent
    holder = OpenWrite(stub)
    holder.send(contents(MAX_UNACKED_PER_CALL))
    holder.wait_for(lambda progress: progress.published_count == MAX_UNACKED_PER_CALL)
    outcome = write(stub.ContentAdd, [contents(MAX_UNACKED_PER_CALL)], timeout_s=SHORT_S)
    check_exhausted(outcome, "FLOW_CONTROL")
    assert outcome.counts == (60, 0, 0)
    holder.cancel()


def test_a_message_larger_than_every_bound_is_admitted_alone(stub: ProvenanceStorageStub) -> None:
    assert write(stub.ContentAdd, [contents(500), contents(500, start=500)]).counts == (1000, 1000, 1000)


def test_many_calls_share_a_narrow_bound(stub: ProvenanceStorageStub) -> None:
    start = threading.Barrier(MAX_CALLS)

    def call(number: int) -> tuple[int, int, int]:
        start.wait(60)
        return write(stub.ContentAdd, [contents(40, start=1000 * number + 40 * part) for part in range(5)]).counts

    with ThreadPoolExecutor(MAX_CALLS) as threads:
        assert list(threads.map(call, range(MAX_CALLS))) == [(200, 200, 200)] * MAX_CALLS


def test_a_crowd_of_calls_is_shed_and_those_that_run_go_on(stub: ProvenanceStorageStub) -> None:
    calls = [OpenWrite(stub, timeout_s=60) for _ in range(MAX_CALLS)]
    for call in calls:
        call.send(contents(1))
        call.wait_for(lambda progress: progress.acked_count == 1)
    with ThreadPoolExecutor(20) as threads:
        for outcome in threads.map(lambda _: write(stub.ContentAdd, [contents(1)], timeout_s=None), range(200)):
            check_exhausted(outcome, "TOO_MANY_CALLS")
    for call in calls:
        call.send(contents(50, start=1))
    assert [call.end().counts for call in calls] == [(51, 51, 51)] * MAX_CALLS


MAX_UNACKED_BYTES = 16 * MIB

# A little more than 1 MiB, as a message and as packages.
LARGE = contents(43_500)
CALLS = 100

# Beside the bound: messages that are being decoded, what gRPC has received and nobody has read, caches.
GROWTH_MAX_BYTES = MAX_UNACKED_BYTES + 64 * MIB


@pytest.fixture
def narrow_gateway(scripted_system: System, scripted_workers: ScriptedWorkers) -> Iterator[GatewayProgram]:
    """A gateway that admits many calls and few bytes."""
    scripted_workers.script = silent
    program = scripted_system.stack.start_gateway(max_unacked_bytes=MAX_UNACKED_BYTES)
    yield program
    assert program.terminate() == 0


@pytest.mark.long
def test_calls_over_the_bound_on_memory_wait_and_come_to_their_end(
    narrow_gateway: GatewayProgram, scripted_workers: ScriptedWorkers
) -> None:
    with connected(narrow_gateway.address) as (_, stub), ThreadPoolExecutor(CALLS) as threads:
        before = Footprint.of(narrow_gateway.pid)
        calls = [threads.submit(write, stub.ContentAdd, [LARGE], 120.0) for _ in range(CALLS)]
        address, unacked = narrow_gateway.metrics_address, "provgate_gateway_unacked_bytes"
        eventually(lambda: value(address, unacked) > MAX_UNACKED_BYTES - 5 * MIB, "the budget is used up", 60)
        after = Footprint.of(narrow_gateway.pid)
        assert after.memory_bytes - before.memory_bytes < GROWTH_MAX_BYTES, f"{before}; {after}"
        assert not any(call.done() for call in calls)
        scripted_workers.script = in_full
        for request in list(scripted_workers.requests):
            scripted_workers.answer(request, *in_full(request))
        assert [call.result().counts for call in calls] == [(43_500, 43_500, 43_500)] * CALLS


# What docs/operations.md says a gateway takes at most with its settings as they are.
DOCUMENTED_BYTES: Final = 560 * MIB
PEAK_MAX_BYTES: Final = int(1.3 * DOCUMENTED_BYTES)

# What a gateway has after a burst beside what it began with: caches, and what its allocator cannot give back.
LEFT_MAX_BYTES: Final = 64 * MIB

# That a message has too many entries is the caller's fault; nothing else is.
EXPECTED: Final = ("OK", "RESOURCE_EXHAUSTED ", "INVALID_ARGUMENT TOO_MANY_ENTRIES")

READ_MAX_S: Final = 1.0


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


def start_gateway(system: System, **settings: Any) -> GatewayProgram:
    """Starts a gateway that ends no call because a busy machine sends its messages late."""
    return system.stack.start_gateway(first_message_wait=60.0, **settings)


@contextmanager
def loaded(program: GatewayProgram, name: str, call_count: int) -> Iterator[Future[Counter[str]]]:
    """Puts a load on a gateway; at the end, checks what has to hold meanwhile and afterwards."""
    before = Footprint.of(program.pid)
    with reading(program.address) as took_s:
        eventually(lambda: len(took_s) >= 20, "reads are answered", 60)
    # A machine that is busy with other things answers more slowly from the beginning.
    read_max_s = max(READ_MAX_S, 20 * median(took_s))
    with reading(program.address) as took_s, ThreadPoolExecutor(1) as thread:
        writes = thread.submit(write_heavily, program.address, name, call_count)
        yield writes
        outcomes = writes.result()
    peak, reads = peak_bytes(program.pid), sorted(took_s)
    figures = f"{call_count} calls of {name}: {before.memory_bytes // MIB} to {peak // MIB} MiB; {dict(outcomes)}; "
    figures += f"{len(reads)} reads, slowest {reads[-1]:.2f} of {read_max_s:.2f} s"
    logger.info("%s", figures)
    assert all(outcome.startswith(EXPECTED) for outcome in outcomes), figures
    assert peak <= PEAK_MAX_BYTES, figures
    assert reads[-1] < read_max_s, figures
    assert "lost" not in program.log_path.read_text(encoding="utf-8")
    eventually(
        lambda: Footprint.of(program.pid).memory_bytes < before.memory_bytes + LEFT_MAX_BYTES,
        "memory goes back",
        timeout_s=30,
    )
    logger.info("afterwards: %d MiB", Footprint.of(program.pid).memory_bytes / MIB)


@pytest.mark.long
def test_300_calls_of_a_message_of_4_mib(system: System) -> None:
    system.stack.start_workers()
    with loaded(start_gateway(system), "contents", 300) as writes:
        # As many as are in hand at once.
        assert writes.result()["OK"] >= 10


@pytest.mark.long
def test_1000_calls_while_workers_are_suspended(system: System) -> None:
    workers = system.stack.start_workers()
    program = start_gateway(system, max_calls=1100, wait_per_batch=60.0)
    workers.stop()
    try:
        with loaded(program, "long paths", 1000) as writes:
            unacked = "provgate_gateway_unacked_bytes"
            eventually(lambda: value(program.metrics_address, unacked) > 240 * MIB, "the budget is used up", 60)
            workers.cont()
            assert writes.result()["OK"] >= 60
    finally:
        workers.cont()


@pytest.mark.long
def test_12_calls_of_2000000_empty_paths(system: System) -> None:
    system.stack.start_workers()
    with loaded(start_gateway(system), "empty paths", 12) as writes:
        assert writes.result() == {"INVALID_ARGUMENT TOO_MANY_ENTRIES": 12}
