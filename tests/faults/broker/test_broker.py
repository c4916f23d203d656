"""The broker dies, stops, closes connections, raises alarms and refuses what is published."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_client.errors import GatewayBusyError
from provgate_stack.processes.programs import WorkerProgram
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_storage import RelationData, RelationType, get_provenance_storage
from tests.faults.outages import away_by_link_or_stopped, broker_away, line_count
from tests.faults.system import CONTENTS, NOTICED_S, RECOVERED_S, System
from tests.support.broker import alarm, alarms
from tests.support.entries import entry_id
from tests.support.fix_stack import FEW_RANGES
from tests.support.gateway_calls import OpenWrite, Outcome, connected, contents, health, outcome_of, write
from tests.support.link import Link
from tests.support.packages import DATE, AmqpSender
from tests.support.polling import eventually
from tests.support.programs import records_of, start_logging_json
from tests.support.scripted_workers import Request, ScriptedWorkers, in_full, silent

pytestmark = pytest.mark.faults

MIB = 1024 * 1024
LONG_ROW_COUNT = 2048
CONNECTIONS = {"provgate-gateway publisher", "provgate-gateway replies"}


def killed(node: RabbitMqNode) -> None:
    node.kill()
    node.start()


def connections_closed(node: RabbitMqNode) -> None:
    node.ctl("close_all_connections", "--global", "a test")


@contextmanager
def suspended(workers: WorkerProgram) -> Iterator[None]:
    """Suspends the workers, so that nothing that is published is acked."""
    workers.stop()
    try:
        yield
    finally:
        workers.cont()


@pytest.mark.parametrize(
    "fault", [killed, connections_closed, pytest.param(RabbitMqNode.restart, marks=pytest.mark.long)]
)
def test_calls_outlive_the_broker(system: System, fault: Callable[[RabbitMqNode], None]) -> None:
    system.start()
    with system.under_load(), suspended(system.workers):
        fault(system.node)
    system.check_nothing_set_aside()
    for program in (system.workers, system.gateway):
        assert "Traceback" not in program.log_path.read_text()
        assert line_count(program) < 100
        assert program.terminate() == 0


def test_calls_outlive_their_connections_again_and_again(system: System) -> None:
    system.start()
    with system.under_load():
        for _ in range(8):
            system.node.evaluate(
                '[rabbit_networking:close_connection(P, "a test") || P <- rabbit_networking:connections()].'
            )
            time.sleep(0.3)


def test_what_is_not_acked_is_published_again_under_ids_of_its_own(
    scripted_system: System, scripted_workers: ScriptedWorkers
) -> None:
    gateway = scripted_system.stack.start_gateway(batch_size=10)
    workers = scripted_workers
    with connected(gateway.address) as (_, stub):
        workers.script = silent
        call = OpenWrite(stub, timeout_s=60)
        call.send(contents(160))
        call.wait_for(lambda progress: progress.published_count == 160)
        workers.wait_for(16)
        workers.script = in_full
        connections_closed(scripted_system.node)
        assert call.end().counts == (160, 160, 160)
        by_body: dict[bytes, list[Request]] = defaultdict(list)
        for request in workers.requests:
            by_body[request.body].append(request)
    again = [requests for requests in by_body.values() if len(requests) > 1]
    assert len(again) == 16
    for requests in again:
        # Replies to the first are lost with its queue: the second has an id and a reply queue of its own.
        assert len({request.correlation_id for request in requests}) == len(requests)
        assert len({request.properties.reply_to for request in requests}) == 2
    assert gateway.terminate() == 0


@away_by_link_or_stopped
def test_while_the_broker_is_away_reads_go_on_and_writes_wait_until_their_deadline(
    linked_system: tuple[System, Link], stopped: bool
) -> None:
    system, link = linked_system
    system.start()
    with (
        system.under_load() as stub,
        grpc.insecure_channel(system.stack.address) as channel,
        broker_away(system, link, stopped=stopped),
    ):
        eventually(lambda: health(channel, "provgate.broker") == "NOT_SERVING", "health knows", NOTICED_S)
        assert health(channel) == "NOT_SERVING"
        assert health(channel, "provgate.storage") == "SERVING"
        outcome = write(stub.ContentAdd, [contents(5)], timeout_s=1.0)
        assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAVAILABLE, "BROKER_UNAVAILABLE")
        assert "RetryInfo" in outcome.details
        assert outcome.counts == (5, 0, 0)
        assert outcome_of(stub.EntityGetAll(CONTENTS, timeout=20)).ok


@pytest.mark.parametrize("resource", ["memory", pytest.param("disk", marks=pytest.mark.long)])
def test_an_alarm_holds_writers_back_and_nobody_else(system: System, resource: str) -> None:
    system.start(gateway={"batch_size": 10})
    system.workers.terminate()
    # More packages in each queue than a worker takes in hand: its delivery acks must get through too.
    backlog = dict.fromkeys((entry_id(number) for number in range(3000)), DATE)
    with system.writing() as writing, connected(system.stack.address) as (_, stub):
        waiting = writing.begin("content_add", backlog)
        writing.wait_published(len(backlog))
        with alarm(system.node, resource):
            system.workers.start()
            system.workers.wait_ready()
            eventually(lambda: system.stored_count(backlog) == len(backlog), "the backlog is stored", RECOVERED_S)
            with AmqpSender(system.url) as sender:
                queues = [f"content_add.unknown.{number:x}" for number in range(FEW_RANGES["content"])]
                sender.wait_until(lambda: not any(map(sender.message_count, queues)), RECOVERED_S)
            wait_blocked(stub)
            held_back = writing.begin("content_add", {entry_id(number): DATE for number in range(3000, 3100)})
            assert outcome_of(stub.EntityGetAll(CONTENTS, timeout=20)).ok
            assert not held_back.done()
            assert not waiting.done()
        assert waiting.result(RECOVERED_S)
        assert held_back.result(RECOVERED_S)
    # The backlog includes what the raw calls sent.
    system.check()


def wait_blocked(stub: ProvenanceStorageStub) -> None:
    # The broker tells a connection that it is blocked once something is published on it.
    write(stub.ContentAdd, [contents(1)], timeout_s=1.0)
    assert_blocked(write(stub.ContentAdd, [contents(5)], timeout_s=1.0))


def assert_blocked(outcome: Outcome) -> None:
    assert (outcome.code, outcome.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BROKER_BLOCKED")
    assert "RetryInfo" in outcome.details
    assert outcome.counts == (5, 0, 0)


def test_what_is_lost_with_the_publisher_alone_is_published_again(system: System) -> None:
    system.start()
    with system.writing() as writing, connected(system.stack.address) as (_, stub):
        with alarm(system.node, "memory"):
            # It is published before the broker says that it blocks the connection, and read by nobody.
            lost = writing.begin("content_add", [entry_id(number) for number in range(100)])
            assert_blocked(write(stub.ContentAdd, [contents(5)], timeout_s=1.0))
            close_connection(system.node, "provgate-gateway publisher")
        assert lost.result(RECOVERED_S)
    system.check()


def close_connection(node: RabbitMqNode, name: str) -> None:
    given = "proplists:get_value(client_properties, rabbit_reader:info(P, [client_properties]))"
    is_named = f'lists:member({{<<"connection_name">>, longstr, <<"{name}">>}}, {given})'
    closed = f'rabbit_networking:close_connection(P, "a test") || P <- rabbit_networking:connections(), {is_named}'
    assert node.evaluate(f"[{closed}].") == "[ok]"


@pytest.mark.long
def test_a_backlog_that_causes_an_alarm_is_drained(system: System) -> None:
    system.start()
    system.workers.terminate()
    used = int(system.node.ctl("eval", "vm_memory_monitor:get_process_memory()."))
    system.node.ctl("set_vm_memory_high_watermark", "absolute", str(used + 48 * MIB))
    try:
        with system.writing() as writing:
            begun = [writing.begin("relation_add", RelationType.CNT_IN_DIR, long_rows(n)) for n in range(12)]
            eventually(lambda: "memory" in alarms(system.node), "the backlog causes an alarm", 60)
            system.workers.start()
            eventually(lambda: row_count(system) == 12 * LONG_ROW_COUNT, "the backlog is stored", RECOVERED_S)
            eventually(lambda: memory_is_given_back(system.node), "the alarm ends", RECOVERED_S)
            assert all(each.result(RECOVERED_S) for each in begun)
    finally:
        system.node.ctl("set_vm_memory_high_watermark", "0.4")
    system.check()


def row_count(system: System) -> int:
    with get_provenance_storage(**system.storage_config) as storage:
        return len(storage.relation_get_all(RelationType.CNT_IN_DIR))


def memory_is_given_back(node: RabbitMqNode) -> bool:
    # The log of a quorum queue keeps bodies in memory, consumed ones too, until its file is full or an alarm has it
    # begin a new one; the broker does that for one alarm in 20 s, and an earlier test may have had it. Idle processes
    # of the broker give memory back after a garbage collection.
    node.evaluate("ra_log_wal:force_roll_over(ra_log_wal).")
    node.ctl("force_gc")
    return "memory" not in alarms(node)


@pytest.mark.parametrize("system", [{"queue_max_length_bytes": MIB}], indirect=True)
def test_a_full_queue_refuses_and_takes_more_once_there_is_room(system: System) -> None:
    system.start()
    system.workers.terminate()
    with system.writing() as writing:
        refused = [writing.begin("relation_add", RelationType.CNT_IN_DIR, long_rows(n)) for n in range(4)]
        error = refused[-1].exception(RECOVERED_S)
        assert isinstance(error, GatewayBusyError)
        assert error.status.reason == "QUEUE_FULL"
        assert error.status.retry_delay_s is not None
    with system.writing(retry_time_s=200) as writing:
        begun = [writing.begin("relation_add", RelationType.CNT_IN_DIR, long_rows(n)) for n in range(4, 8)]
        assert not any(each.done() for each in begun)
        system.workers.start()
        assert all(each.result(100) for each in begun)
    system.check()
    system.stack.stop()


def long_rows(number: int) -> dict[bytes, set[RelationData]]:
    """Returns rows of 8 MiB in all."""
    ids = [entry_id(number * LONG_ROW_COUNT + each) for each in range(LONG_ROW_COUNT)]
    return {id: {RelationData(id, (id.hex().encode() * 103)[:4096])} for id in ids}


@away_by_link_or_stopped
def test_a_broker_that_is_away_is_two_records_of_a_connection(
    linked_system: tuple[System, Link], stopped: bool
) -> None:
    system, link = linked_system
    start_logging_json(system.stack)
    with connected(system.stack.address):
        pass

    def logged(state: str) -> list[dict[str, Any]]:
        records = records_of(system.gateway.log_path)
        return [each for each in records if each["action"] == "broker.connect" and each.get("state") == state]

    assert {each["connection"] for each in logged("working")} >= CONNECTIONS
    with broker_away(system, link, stopped=stopped):
        eventually(
            lambda: {each["connection"] for each in logged("failing")} >= CONNECTIONS, "the loss is logged", NOTICED_S
        )
    eventually(
        lambda: {each["connection"] for each in logged("working") if "after_s" in each} >= CONNECTIONS,
        "the connections of calls are made again",
        120,
    )
    for connection in CONNECTIONS:
        failures = [each for each in logged("failing") if each["connection"] == connection]
        # The loss, and reasons that are new while the broker starts.
        assert 1 <= len(failures) <= 3
        assert all(each["level"] == "warning" and each["reason"] for each in failures)
