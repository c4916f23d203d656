"""Gateways that are killed or told to end while writes go on."""

from __future__ import annotations

import signal
from collections.abc import Callable

import grpc
import pytest

from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_stack.processes.programs import GatewayProgram
from provgate_stack.stack import Stack, StorageConfig
from tests.faults.held_writes import rows_held
from tests.faults.load import Writing, check
from tests.support.fix_stack import MakeStack
from tests.support.gateway_calls import OpenWrite, connected, contents
from tests.support.loss_checker import Checker
from tests.support.packages import DATE, content_ids
from tests.support.polling import eventually
from tests.support.programs import HealthWatcher, end_of, send_signal, with_path
from tests.support.scripted_workers import ScriptedWorkers, in_full, silent

pytestmark = pytest.mark.faults

# For how long an adapter tries again: far longer than a gateway of these tests is away.
RETRY_S = 120.0

Replace = Callable[[GatewayProgram], GatewayProgram]


@pytest.fixture(params=["the same", "another"])
def replace(request: pytest.FixtureRequest, small_stack: Stack) -> Replace:
    """Starts a gateway that ended anew, or another one at its address."""

    def start(program: GatewayProgram) -> GatewayProgram:
        if request.param == "another":
            return small_stack.start_gateway(listen=small_stack.address)
        program.start()
        program.wait_ready()
        return program

    return start


def test_a_write_outlives_gateways_that_are_killed(
    small_stack: Stack, checker: Checker, storage_config: StorageConfig, replace: Replace
) -> None:
    small_stack.start()
    (program,) = small_stack.gateways
    with Writing(small_stack.address, checker, retry_time_s=RETRY_S, checkpoint_entries=20_000) as writing:
        write = writing.begin("content_add", dict.fromkeys(content_ids(150_000), DATE))
        for published_count in (1, 40_000, 80_000):
            writing.wait_published(published_count, timeout_s=60)
            assert not write.done()
            program.kill()
            program = replace(program)
        assert write.result(150) is True
    check(checker, storage_config)
    assert program.terminate() == 0


def test_a_write_that_the_end_of_its_gateway_cuts_short_is_sent_to_the_next(
    small_stack: Stack, checker: Checker, database_dsn: str, storage_config: StorageConfig, replace: Replace
) -> None:
    small_stack.start_workers()
    program = small_stack.start_gateway(listen=small_stack.address, grace=0.5, max_unacked_entries=2_000)
    ids = content_ids(5_000)
    with Writing(small_stack.address, checker, retry_time_s=RETRY_S, message_entries=1_000) as writing:
        with rows_held(database_dsn, ids[:1]):
            write = writing.begin("content_add", dict.fromkeys(ids, DATE))
            # The next message is received, waits, and goes with the gateway.
            writing.wait_published(2_000)
            assert program.terminate() == 0
            program = replace(program)
            assert not write.done()
        assert write.result(60) is True
    check(checker, storage_config)
    assert program.terminate() == 0


def test_a_write_in_flight_ends_well_at_the_gateway_that_ends(
    small_stack: Stack, checker: Checker, database_dsn: str, storage_config: StorageConfig
) -> None:
    small_stack.start()
    (program,) = small_stack.gateways
    ids = content_ids(5_000)
    # The adapter does not try again: it is one call.
    with Writing(small_stack.address, checker) as writing:
        with rows_held(database_dsn, ids[:1]):
            write = writing.begin("content_add", dict.fromkeys(ids, DATE))
            writing.wait_published(len(ids))
            send_signal(program)
            eventually(lambda: not _takes_calls(program), "new calls are refused")
        assert write.result(60) is True
    assert end_of(program, timeout_s=20)[0] == 0
    check(checker, storage_config)


def _takes_calls(program: GatewayProgram) -> bool:
    with grpc.insecure_channel(program.address) as channel:
        return with_path(ProvenanceStorageStub(channel))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_calls_in_flight_finish_before_the_end(
    make_stack: MakeStack, scripted_workers: ScriptedWorkers, number: signal.Signals
) -> None:
    program = make_stack().start_gateway()
    with connected(program.address) as (channel, stub):
        watcher = HealthWatcher(channel)
        eventually(lambda: watcher.statuses == ["SERVING"], "the watch has begun")
        scripted_workers.script = silent
        call = OpenWrite(stub)
        call.send(contents(3))
        call.wait_for(lambda progress: progress.published_count == 3)
        send_signal(program, number)
        eventually(lambda: watcher.statuses == ["SERVING", "NOT_SERVING"], "health says so")
        watcher.end()
        assert program.alive
        # No new call is taken, but the one in flight may even send more.
        eventually(lambda: not with_path(stub), "new calls are refused")
        scripted_workers.script = in_full
        call.send(contents(4, start=3))
        for request in scripted_workers.wait_for(3)[:3]:
            scripted_workers.answer(request, *in_full(request))
        assert call.end().counts == (7, 7, 7)
    code, log = end_of(program, timeout_s=5)
    assert code == 0
    assert "Traceback" not in log


def test_at_the_end_of_the_grace_period_calls_are_told_to_try_again(
    make_stack: MakeStack, scripted_workers: ScriptedWorkers
) -> None:
    scripted_workers.script = silent
    program = make_stack().start_gateway(grace=0.8)
    with connected(program.address) as (_, stub):
        call = OpenWrite(stub)
        call.send(contents(3))
        call.wait_for(lambda progress: progress.published_count == 3)
        send_signal(program)
        outcome = call.end()
        assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        assert outcome.counts == (3, 3, 0)
        assert "RetryInfo" in outcome.details
    assert end_of(program, timeout_s=5)[0] == 0
