"""Clients that vanish, do not read, or do not end: they cost the gateway nothing for long."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
import pytest

from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_stack.processes.directory import StackDirectory
from provgate_stack.processes.programs import GatewayProgram
from provgate_stack.servers.postgresql import postgresql_storage
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack, StorageConfig
from tests.faults.client_program import group, running_client
from tests.faults.footprint import MIB, Footprint
from tests.faults.load import check
from tests.support.broker import message_count, queue_names
from tests.support.gateway_calls import OpenWrite, connected, contents, outcome_of, progress_of, write
from tests.support.loss_checker import Checker
from tests.support.polling import eventually
from tests.support.scripted_workers import Answer, Request, ScriptedWorkers, in_full, set_up

pytestmark = pytest.mark.faults

WAIT_MIN_S = 1.5
MAX_CALLS = 2
MAX_UNACKED = 50_000

# What the allocator and caches may add. What a call of these tests holds is 0.5 MiB, a hundred times of it far more.
GROWTH_MAX_BYTES = 12 * MIB

# A client that takes so few bytes ahead that a second response waits until the first is read.
NARROW = [("grpc.http2.lookahead_bytes", 1), ("grpc.http2.bdp_probe", 0)]


@dataclass
class Served:
    """A gateway in front of scripted workers, and its private broker."""

    program: GatewayProgram
    workers: ScriptedWorkers
    node: RabbitMqNode
    url: str


@pytest.fixture(scope="module")
def module_gateway(
    rabbitmq_node: RabbitMqNode, module_postgres_dsn: str, stack_directory: StackDirectory
) -> Iterator[Served]:
    vhost = f"clients-{secrets.token_hex(4)}"
    rabbitmq_node.add_vhost(vhost)
    url = rabbitmq_node.url(vhost)
    storage_config = postgresql_storage(module_postgres_dsn)
    set_up(url, storage_config)
    stack = Stack(url, storage_config, stack_directory, name=vhost)
    with ScriptedWorkers(url) as workers:
        program = stack.start_gateway(
            wait_min=WAIT_MIN_S, wait_per_batch=0, max_calls=MAX_CALLS, max_unacked_entries=MAX_UNACKED
        )
        yield Served(program, workers, rabbitmq_node, url)
        assert program.terminate() == 0
        # What gRPC says of a client that goes away in the middle of a response is not ours.
        assert " ERROR provgate" not in program.log_path.read_text(encoding="utf-8")
    rabbitmq_node.delete_vhost(vhost)


@pytest.fixture
def gateway(module_gateway: Served) -> Served:
    module_gateway.workers.reset()
    return module_gateway


@pytest.fixture
def stub(gateway: Served) -> Iterator[ProvenanceStorageStub]:
    with connected(gateway.program.address) as (_, stub):
        yield stub
        gateway.workers.reset()
        # Whatever a test has left: every call has its place again, and every entry its share.
        _take_all_there_is(stub)


def _take_all_there_is(stub: ProvenanceStorageStub) -> None:
    eventually(lambda: _all_is_taken(stub), "calls and entries are admitted up to the bounds")


def _all_is_taken(stub: ProvenanceStorageStub) -> bool:
    share = MAX_UNACKED // MAX_CALLS
    calls = [OpenWrite(stub) for _ in range(MAX_CALLS)]
    for number, call in enumerate(calls):
        call.send(contents(share, start=share * number))
    return [call.end().counts for call in calls] == [(share, share, share)] * MAX_CALLS


@contextmanager
def _narrow_channel(gateway: Served) -> Iterator[ProvenanceStorageStub]:
    with grpc.insecure_channel(gateway.program.address, NARROW) as channel:
        yield ProvenanceStorageStub(channel)


def _taken(stub: ProvenanceStorageStub) -> bool:
    return write(stub.ContentAdd, [contents(1)]).ok


def _one_only(request: Request) -> list[Answer]:
    return in_full(request) if len(request.entries) == 1 else []


def _cancel_many(gateway: Served, stub: ProvenanceStorageStub, count: int) -> None:
    """Cancels calls of which as much is published as may be, and more is read."""
    for _ in range(count):
        gateway.workers.requests.clear()
        eventually(lambda: _taken(stub), "the call before has given back what it held")
        call = OpenWrite(stub)
        for part in range(3):
            call.send(contents(20_000, start=20_000 * part))
        call.wait_for(lambda progress: progress.received_count == 60_000 and progress.published_count == 40_000)
        call.cancel()


@pytest.mark.long
def test_a_hundred_cancelled_calls_leave_nothing_behind(gateway: Served, stub: ProvenanceStorageStub) -> None:
    gateway.workers.script = _one_only
    _cancel_many(gateway, stub, 20)
    queues, before = queue_names(gateway.node, gateway.url), Footprint.of(gateway.program.pid)
    _cancel_many(gateway, stub, 100)
    after = Footprint.of(gateway.program.pid)
    assert after.memory_bytes - before.memory_bytes < GROWTH_MAX_BYTES, f"{before}; {after}"
    assert after.file_count <= before.file_count
    assert queue_names(gateway.node, gateway.url) == queues
    assert message_count(gateway.node, gateway.url) == 0


def test_a_few_cancelled_calls_leave_nothing_behind(gateway: Served, stub: ProvenanceStorageStub) -> None:
    gateway.workers.script = _one_only
    _cancel_many(gateway, stub, 2 * MAX_CALLS)


def _flood(gateway: Served, call: OpenWrite, message_count: int) -> None:
    """Sends messages as fast as they are acked, and reads no answer."""
    for number in range(message_count):
        call.send(contents(1600, start=1600 * number))
        gateway.workers.wait_for(16)
        gateway.workers.requests.clear()


def test_a_client_that_never_reads_costs_no_memory(gateway: Served, stub: ProvenanceStorageStub) -> None:
    with _narrow_channel(gateway) as narrow:
        call = OpenWrite(narrow, timeout_s=None)
        _flood(gateway, call, 30)
        before = Footprint.of(gateway.program.pid)
        _flood(gateway, call, 300)
        after = Footprint.of(gateway.program.pid)
        assert after.memory_bytes - before.memory_bytes < GROWTH_MAX_BYTES, f"{before}; {after}"
        # Late as it is, the client finds its acks.
        assert call.end().counts == (528_000, 528_000, 528_000)


@pytest.mark.parametrize("half_closes", [False, True])
@pytest.mark.parametrize("timeout_s", [None, 1.0])
def test_a_client_that_never_reads_loses_its_place(
    gateway: Served, stub: ProvenanceStorageStub, timeout_s: float | None, half_closes: bool
) -> None:
    gateway.workers.script = _one_only
    with _narrow_channel(gateway) as narrow:
        calls = [OpenWrite(narrow, timeout_s) for _ in range(MAX_CALLS)]
        for call in calls:
            for part in range(5):
                call.send(contents(5_000, start=5_000 * part))
                gateway.workers.wait_for(16)
                gateway.workers.requests.clear()
            if half_closes:
                call.half_close()
        assert write(stub.ContentAdd, [contents(1)]).reason == "TOO_MANY_CALLS"
        eventually(lambda: _taken(stub), "the calls that nobody reads are over")
        gateway.workers.reset()
        _take_all_there_is(stub)
        outcomes = [call.end() for call in calls]
    assert {outcome.code for outcome in outcomes} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    if timeout_s is None:
        assert {(outcome.reason, outcome.counts) for outcome in outcomes} == {("NO_PROGRESS", (25_000, 25_000, 0))}


def test_a_client_that_never_half_closes_loses_its_place(gateway: Served, stub: ProvenanceStorageStub) -> None:
    calls = [OpenWrite(stub, timeout_s) for timeout_s in (None, 0.7)]
    for call in calls:
        call.send(contents(10))
        call.wait_for(lambda progress: progress.acked_count == 10)
    started_at = time.monotonic()
    outcomes = [progress_of(outcome_of(call.call)) for call in calls]
    assert WAIT_MIN_S - 0.5 < time.monotonic() - started_at < WAIT_MIN_S + 5
    assert [(outcome.code, outcome.reason) for outcome in outcomes] == [
        (grpc.StatusCode.DEADLINE_EXCEEDED, "NO_PROGRESS")
    ] * 2
    assert [outcome.counts for outcome in outcomes] == [(10, 10, 10)] * 2


def test_a_call_that_sends_nothing_loses_its_place(gateway: Served, stub: ProvenanceStorageStub) -> None:
    outcome = progress_of(outcome_of(OpenWrite(stub, timeout_s=None).call))
    assert (outcome.code, outcome.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "NO_PROGRESS")


class Reported:
    """What a client told of a group before it was killed, in the form in which the checker takes it."""

    def __init__(self, acked: bool) -> None:
        self.content_add = lambda _ids: acked


def _kill_client(address: str, seed: int, call_count: int, checker: Checker) -> None:
    """Starts a client, kills it (SIGKILL) in the middle of all its calls, and records its groups."""
    begun, acked = set[int](), set[int]()
    with running_client(address, seed, call_count) as process:
        assert process.stdout is not None
        for line in process.stdout:
            (begun if line.startswith("begun") else acked).add(int(line.split()[1]))
            if len(acked) >= call_count and len(begun - acked) == call_count:
                process.kill()
    assert begun - acked
    for number in begun:
        checker.write(Reported(number in acked), "content_add", group(seed, number))  # type: ignore[arg-type]


def _kill_clients(address: str, seeds: range, checker: Checker) -> None:
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda seed: _kill_client(address, seed, 5, checker), seeds))


@pytest.mark.long
def test_a_hundred_killed_clients_lose_nothing_and_leave_nothing(
    small_stack: Stack, checker: Checker, storage_config: StorageConfig, broker_url: str, rabbitmq_node: RabbitMqNode
) -> None:
    small_stack.start_workers()
    program = small_stack.start_gateway(max_calls=15)

    def all_stored() -> bool:
        return message_count(rabbitmq_node, broker_url) == 0

    _kill_clients(program.address, range(6), checker)
    eventually(all_stored, "all is stored", timeout_s=60)
    queues, before = queue_names(rabbitmq_node, broker_url), Footprint.of(program.pid)
    _kill_clients(program.address, range(6, 26), checker)
    eventually(all_stored, "all is stored", timeout_s=60)
    after = Footprint.of(program.pid)
    assert after.memory_bytes - before.memory_bytes < GROWTH_MAX_BYTES, f"{before}; {after}"
    assert after.file_count <= before.file_count
    assert queue_names(rabbitmq_node, broker_url) == queues
    check(checker, storage_config)
    assert program.terminate() == 0
