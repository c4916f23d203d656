"""Gateways are killed or asked to end while writes go on."""

from __future__ import annotations

import signal

import grpc
import pytest

from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_stack.processes.programs import GatewayProgram
from tests.faults.postgresql import rows_held
from tests.faults.system import RECOVERED_S, System
from tests.support.gateway_calls import OpenWrite, connected, contents
from tests.support.packages import DATE, content_ids
from tests.support.polling import eventually
from tests.support.programs import HealthWatcher, end_of, send_signal, with_path
from tests.support.scripted_workers import ScriptedWorkers, in_full, silent

pytestmark = pytest.mark.faults

# How long an adapter tries again: much longer than a gateway of these tests is away.
RETRY_S = 120.0

# Much longer than a test waits for the end of a gateway whose calls have finished.
LONG_GRACE_S = 300.0


@pytest.fixture(params=["the same", pytest.param("another", marks=pytest.mark.long)])
def another(request: pytest.FixtureRequest) -> bool:
    """Whether another gateway takes the place of one that ended, or the same one starts anew."""
    return bool(request.param == "another")


def replaced(system: System, program: GatewayProgram, *, another: bool) -> GatewayProgram:
    """Starts a gateway that ended anew, or another one at its address."""
    if another:
        return system.stack.start_gateway(listen=system.stack.address)
    program.start()
    program.wait_ready()
    return program


def test_a_write_outlives_gateways_that_are_killed(system: System, another: bool) -> None:
    system.start()
    program = system.gateway
    with system.writing(retry_time_s=RETRY_S, checkpoint_entries=20_000) as writing:
        write = writing.begin("content_add", dict.fromkeys(content_ids(150_000), DATE))
        for published_count in (1, 40_000, 80_000):
            writing.wait_published(published_count)
            assert not write.done()
            program.kill()
            program = replaced(system, program, another=another)
        assert write.result(150) is True
    system.check()
    assert program.terminate() == 0


def test_a_write_that_the_end_of_its_gateway_cuts_short_is_sent_to_the_next(system: System, another: bool) -> None:
    system.start({"grace": 0.5, "max_unacked_entries": 2_000})
    ids = content_ids(5_000)
    with system.writing(retry_time_s=RETRY_S, message_entries=1_000) as writing:
        with rows_held(system.dsn, ids[:1]):
            write = writing.begin("content_add", dict.fromkeys(ids, DATE))
            # The next message is received, waits, and is lost with the gateway.
            writing.wait_published(2_000)
            assert system.gateway.terminate() == 0
            program = replaced(system, system.gateway, another=another)
            assert not write.done()
        assert write.result(RECOVERED_S) is True
    system.check()
    assert program.terminate() == 0


def test_a_write_in_flight_ends_well_at_the_gateway_that_ends(system: System) -> None:
    system.start({"grace": LONG_GRACE_S})
    ids = content_ids(5_000)
    # The adapter does not try again: it is one call.
    with system.writing() as writing:
        with rows_held(system.dsn, ids[:1]):
            write = writing.begin("content_add", dict.fromkeys(ids, DATE))
            writing.wait_published(len(ids))
            send_signal(system.gateway)
            eventually(lambda: not admits_calls(system.gateway), "new calls are refused")
        assert write.result(RECOVERED_S) is True
    assert end_of(system.gateway)[0] == 0
    system.check()


def admits_calls(program: GatewayProgram) -> bool:
    with grpc.insecure_channel(program.address) as channel:
        return with_path(ProvenanceStorageStub(channel))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_calls_in_flight_finish_before_the_end(
    scripted_system: System, scripted_workers: ScriptedWorkers, number: signal.Signals
) -> None:
    program = scripted_system.stack.start_gateway(grace=LONG_GRACE_S)
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
    code, log = end_of(program, timeout_s=30)
    assert code == 0
    assert "Traceback" not in log


def test_at_the_end_of_the_grace_period_calls_are_told_to_try_again(
    scripted_system: System, scripted_workers: ScriptedWorkers
) -> None:
    scripted_workers.script = silent
    program = scripted_system.stack.start_gateway(grace=0.8)
    with connected(program.address) as (_, stub):
        call = OpenWrite(stub)
        call.send(contents(3))
        call.wait_for(lambda progress: progress.published_count == 3)
        send_signal(program)
        outcome = call.end()
        assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        assert outcome.counts == (3, 3, 0)
        assert "RetryInfo" in outcome.details
    assert end_of(program, timeout_s=30)[0] == 0
