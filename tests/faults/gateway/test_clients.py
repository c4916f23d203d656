"""Clients that vanish, do not read, or do not end cost the gateway nothing for long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Final

import grpc
import pytest

from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_stack.processes.programs import GatewayProgram
from tests.faults.footprint import MIB, Footprint
from tests.faults.hostile_clients import group, kill_client
from tests.faults.system import RECOVERED_S, System
from tests.support.gateway_calls import OpenWrite, connected, contents, outcome_of, progress_of, write
from tests.support.loss_checker import Call
from tests.support.polling import eventually
from tests.support.scripted_workers import Answer, Request, ScriptedWorkers, in_full

pytestmark = pytest.mark.faults

FIRST_WAIT_S: Final = 1.5
WAIT_MIN_S: Final = 4.0
# Shorter than WAIT_MIN_S: the deadline of these calls comes first.
DEADLINE_S: Final = 3.0
MAX_CALLS: Final = 2
MAX_UNACKED: Final = 50_000

# What the allocator and caches may add. A call of these tests holds 0.5 MiB: a hundred that stay are far more.
GROWTH_MAX_BYTES: Final = 12 * MIB

# A client that receives so few bytes ahead that a second response waits until the first is read.
NARROW: Final = [("grpc.http2.lookahead_bytes", 1), ("grpc.http2.bdp_probe", 0)]


@pytest.fixture(scope="module")
def gateway(scripted_system: System, module_scripted_workers: ScriptedWorkers) -> Iterator[GatewayProgram]:
    """A gateway with narrow bounds."""
    program = scripted_system.stack.start_gateway(
        wait_min=WAIT_MIN_S,
        first_message_wait=FIRST_WAIT_S,
        wait_per_batch=0,
        max_calls=MAX_CALLS,
        max_unacked_entries=MAX_UNACKED,
    )
    yield program
    assert program.terminate() == 0
    # gRPC itself logs an error when a client goes away in the middle of a response.
    assert " ERROR provgate" not in program.log_path.read_text(encoding="utf-8")


@pytest.fixture
def stub(gateway: GatewayProgram, scripted_workers: ScriptedWorkers) -> Iterator[ProvenanceStorageStub]:
    with connected(gateway.address) as (_, stub):
        yield stub
        scripted_workers.reset()
        wait_all_free(stub)


def wait_all_free(stub: ProvenanceStorageStub) -> None:
    """Returns when calls and entries are admitted up to the bounds, so that nothing is left of earlier calls."""

    def is_all_free() -> bool:
        share = MAX_UNACKED // MAX_CALLS
        calls = [OpenWrite(stub) for _ in range(MAX_CALLS)]
        for number, call in enumerate(calls):
            call.send(contents(share, start=share * number))
        return [call.end().counts for call in calls] == [(share, share, share)] * MAX_CALLS

    eventually(is_all_free, "calls and entries are admitted up to the bounds", 60)


@contextmanager
def narrow_channel(gateway: GatewayProgram) -> Iterator[ProvenanceStorageStub]:
    with grpc.insecure_channel(gateway.address, NARROW) as channel:
        yield ProvenanceStorageStub(channel)


def wait_admitted(stub: ProvenanceStorageStub) -> None:
    """Returns when a write is admitted."""
    eventually(lambda: write(stub.ContentAdd, [contents(1)]).ok, "earlier calls have given back what they held", 60)


def answer_one_only(request: Request) -> list[Answer]:
    return in_full(request) if len(request.entries) == 1 else []


def cancel_many(scripted_workers: ScriptedWorkers, stub: ProvenanceStorageStub, count: int) -> None:
    """Cancels calls that have published as much as they may, and sent more."""
    scripted_workers.script = answer_one_only
    for _ in range(count):
        scripted_workers.requests.clear()
        wait_admitted(stub)
        call = OpenWrite(stub)
        for part in range(3):
            call.send(contents(20_000, start=20_000 * part))
        call.wait_for(lambda progress: progress.received_count == 60_000 and progress.published_count == 40_000)
        call.cancel()


@pytest.mark.long
def test_a_hundred_cancelled_calls_leave_nothing_behind(
    scripted_system: System, gateway: GatewayProgram, scripted_workers: ScriptedWorkers, stub: ProvenanceStorageStub
) -> None:
    cancel_many(scripted_workers, stub, 20)
    queues, before = scripted_system.queue_names(), Footprint.of(gateway.pid)
    cancel_many(scripted_workers, stub, 100)
    Footprint.of(gateway.pid).check_grown_by_less(before, GROWTH_MAX_BYTES)
    assert scripted_system.queue_names() == queues
    assert scripted_system.message_count() == 0


def test_a_few_cancelled_calls_leave_nothing_behind(
    scripted_workers: ScriptedWorkers, stub: ProvenanceStorageStub
) -> None:
    cancel_many(scripted_workers, stub, 2 * MAX_CALLS)


def send_part(scripted_workers: ScriptedWorkers, call: OpenWrite, number: int, entry_count: int) -> None:
    """Sends one message, and waits until its packages have come to the scripted_workers."""
    call.send(contents(entry_count, start=entry_count * number))
    scripted_workers.wait_for(16)
    scripted_workers.requests.clear()


def test_a_client_that_never_reads_costs_no_memory(
    gateway: GatewayProgram, scripted_workers: ScriptedWorkers, stub: ProvenanceStorageStub
) -> None:
    with narrow_channel(gateway) as narrow:
        call = OpenWrite(narrow, timeout_s=None)
        for number in range(30):
            send_part(scripted_workers, call, number, 1600)
        before = Footprint.of(gateway.pid)
        for number in range(300):
            send_part(scripted_workers, call, number, 1600)
        after = Footprint.of(gateway.pid)
        assert after.memory_bytes - before.memory_bytes < GROWTH_MAX_BYTES, f"{before}; {after}"
        # The acks are there for a client that reads late.
        assert call.end().counts == (528_000, 528_000, 528_000)


@pytest.mark.parametrize("half_closes", [False, True])
@pytest.mark.parametrize("timeout_s", [None, DEADLINE_S])
def test_a_client_that_never_reads_loses_its_place(
    gateway: GatewayProgram,
    scripted_workers: ScriptedWorkers,
    stub: ProvenanceStorageStub,
    timeout_s: float | None,
    half_closes: bool,
) -> None:
    scripted_workers.script = answer_one_only
    with narrow_channel(gateway) as narrow:
        calls: list[OpenWrite] = []
        for _ in range(MAX_CALLS):
            # The time of its deadline begins here.
            calls.append(call := OpenWrite(narrow, timeout_s))
            for part in range(5):
                send_part(scripted_workers, call, part, 5_000)
            if half_closes:
                call.half_close()
        assert write(stub.ContentAdd, [contents(1)]).reason == "TOO_MANY_CALLS"
        wait_admitted(stub)
        scripted_workers.reset()
        wait_all_free(stub)
        outcomes = [call.end() for call in calls]
    assert {outcome.code for outcome in outcomes} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    if timeout_s is None:
        assert {(outcome.reason, outcome.counts) for outcome in outcomes} == {("NO_PROGRESS", (25_000, 25_000, 0))}


def test_a_client_that_never_half_closes_loses_its_place(stub: ProvenanceStorageStub) -> None:
    calls = [OpenWrite(stub, timeout_s) for timeout_s in (None, DEADLINE_S)]
    for call in calls:
        call.send(contents(10))
        call.wait_for(lambda progress: progress.acked_count == 10)
    started_at = time.monotonic()
    outcomes = [progress_of(outcome_of(call.call)) for call in calls]
    assert WAIT_MIN_S - 0.5 < time.monotonic() - started_at < WAIT_MIN_S + 10
    assert [(outcome.code, outcome.reason, outcome.counts) for outcome in outcomes] == [
        (grpc.StatusCode.DEADLINE_EXCEEDED, "NO_PROGRESS", (10, 10, 10))
    ] * 2


def test_a_call_that_sends_nothing_loses_its_place(stub: ProvenanceStorageStub) -> None:
    outcome = progress_of(outcome_of(OpenWrite(stub, timeout_s=None).call))
    assert (outcome.code, outcome.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "NO_PROGRESS")


def kill_clients(system: System, seeds: range) -> None:
    """Starts clients, kills them in the middle of their calls, and records what they wrote."""
    kill = partial(kill_client, system.gateway.address, call_count=5)
    with ThreadPoolExecutor(2) as threads:
        for seed, (begun, acked) in zip(seeds, threads.map(kill, seeds), strict=True):
            for number in begun:
                system.checker.record(Call("content_add", (group(seed, number),), number in acked, None))
    eventually(lambda: system.message_count() == 0, "all is stored", RECOVERED_S)


@pytest.mark.long
def test_a_hundred_killed_clients_lose_nothing_and_leave_nothing(system: System) -> None:
    system.start({"max_calls": 15})
    kill_clients(system, range(6))
    queues, before = system.queue_names(), Footprint.of(system.gateway.pid)
    kill_clients(system, range(6, 26))
    Footprint.of(system.gateway.pid).check_grown_by_less(before, GROWTH_MAX_BYTES)
    assert system.queue_names() == queues
    system.check()
    assert system.gateway.terminate() == 0
