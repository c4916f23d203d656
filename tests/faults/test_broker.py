"""The broker dies, stops, closes connections, raises alarms and refuses what is published."""

from __future__ import annotations

import secrets
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import grpc
import pytest

from provgate.v1 import model_pb2
from provgate.v1 import provenance_storage_pb2 as pb2
from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE, QUARANTINE_QUEUE
from provgate_client.errors import GatewayBusyError
from provgate_stack.processes.directory import StackDirectory
from provgate_stack.processes.programs import WorkerProgram
from provgate_stack.servers.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack, StorageConfig
from provgate_storage import RelationData, RelationType, get_provenance_storage
from tests.faults.load import Load, Writing, check, check_all_acked
from tests.support.broker import alarm, alarms
from tests.support.entries import entry_id
from tests.support.fix_stack import FEW_RANGES
from tests.support.gateway_calls import OpenWrite, Outcome, connected, contents, health, outcome_of, wait_serving, write
from tests.support.loss_checker import Checker
from tests.support.packages import AmqpSender, stored_count
from tests.support.polling import eventually
from tests.support.scripted_workers import Request, ScriptedWorkers, in_full, set_up, silent

pytestmark = pytest.mark.faults

RECOVERED_S = 60.0
MIB = 1024 * 1024
LONG_ROW_COUNT = 2048
DATE = datetime(2020, 1, 2, tzinfo=UTC)
CONTENTS = pb2.EntityGetAllRequest(entity=model_pb2.ENTITY_TYPE_CONTENT)


def killed(node: RabbitMqNode) -> None:
    node.kill()
    node.start()


def connections_closed(node: RabbitMqNode) -> None:
    node.ctl("close_all_connections", "--global", "a test")


@contextmanager
def suspended(workers: WorkerProgram) -> Iterator[None]:
    """Has what is published meanwhile wait for its acks."""
    workers.stop()
    try:
        yield
    finally:
        workers.cont()


@pytest.mark.parametrize("fault", [killed, RabbitMqNode.restart, connections_closed], ids=lambda fault: fault.__name__)
def test_calls_outlive_the_broker(
    small_stack: Stack,
    rabbitmq_node: RabbitMqNode,
    broker_url: str,
    storage_config: StorageConfig,
    checker: Checker,
    fault: Callable[[RabbitMqNode], None],
) -> None:
    small_stack.start()
    with Load(small_stack.address, checker) as load:
        load.wait_for_acks()
        with suspended(small_stack.workers[0]):
            fault(rabbitmq_node)
        load.wait_for_acks(RECOVERED_S)
        with grpc.insecure_channel(small_stack.address) as channel:
            wait_serving(channel)
        check_all_acked(load, checker, storage_config)
    with AmqpSender(broker_url) as sender:
        assert sender.message_count(DEAD_LETTER_QUEUE) == sender.message_count(QUARANTINE_QUEUE) == 0
    for program in (*small_stack.workers, *small_stack.gateways):
        assert len(log_lines(program.log_path.read_text())) < 100
        assert program.terminate() == 0


def log_lines(log: str) -> list[str]:
    assert "Traceback" not in log
    return log.splitlines()


def test_calls_outlive_their_connections_again_and_again(
    small_stack: Stack, rabbitmq_node: RabbitMqNode, storage_config: StorageConfig, checker: Checker
) -> None:
    small_stack.start()
    with Load(small_stack.address, checker) as load:
        for _ in range(8):
            rabbitmq_node.evaluate(
                '[rabbit_networking:close_connection(P, "a test") || P <- rabbit_networking:connections()].'
            )
            threading.Event().wait(0.3)
        load.wait_for_acks(RECOVERED_S)
        check_all_acked(load, checker, storage_config)


def test_what_is_not_acked_is_published_again_under_ids_of_its_own(
    broker_url: str, storage_config: StorageConfig, stack_directory: StackDirectory, rabbitmq_node: RabbitMqNode
) -> None:
    set_up(broker_url, storage_config)
    stack = Stack(broker_url, storage_config, stack_directory, name=f"faults-{secrets.token_hex(4)}")
    gateway = stack.start_gateway(batch_size=10)
    with ScriptedWorkers(broker_url) as workers, connected(gateway.address) as (_, stub):
        workers.script = silent
        call = OpenWrite(stub, timeout_s=60)
        call.send(contents(160))
        call.wait_for(lambda progress: progress.published_count == 160)
        workers.wait_for(16)
        workers.script = in_full
        connections_closed(rabbitmq_node)
        assert call.end().counts == (160, 160, 160)
        again = [requests for requests in by_body(workers.requests).values() if len(requests) > 1]
    assert len(again) == 16
    for requests in again:
        # Replies to the first are lost with its queue: the second has an id and a reply queue of its own.
        assert len({request.correlation_id for request in requests}) == len(requests)
        assert len({request.properties.reply_to for request in requests}) == 2
    assert gateway.terminate() == 0


def by_body(requests: list[Request]) -> dict[bytes, list[Request]]:
    found: dict[bytes, list[Request]] = defaultdict(list)
    for request in requests:
        found[request.body].append(request)
    return found


def test_while_the_broker_is_away_reads_go_on_and_writes_wait_until_their_deadline(
    small_stack: Stack, rabbitmq_node: RabbitMqNode, storage_config: StorageConfig, checker: Checker
) -> None:
    small_stack.start()
    with Load(small_stack.address, checker) as load, connected(small_stack.address) as (channel, stub):
        load.wait_for_acks()
        rabbitmq_node.stop()
        try:
            eventually(lambda: health(channel, "provgate.broker") == "NOT_SERVING", "health knows")
            assert health(channel) == "NOT_SERVING"
            assert health(channel, "provgate.storage") == "SERVING"
            outcome = write(stub.ContentAdd, [contents(5)], timeout_s=1.0)
            assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAVAILABLE, "BROKER_UNAVAILABLE")
            assert "RetryInfo" in outcome.details
            assert outcome.counts == (5, 0, 0)
            assert outcome_of(stub.EntityGetAll(CONTENTS, timeout=10)).ok
        finally:
            rabbitmq_node.start()
        load.wait_for_acks(RECOVERED_S)
        wait_serving(channel)
        check_all_acked(load, checker, storage_config)


@pytest.mark.parametrize("resource", ["memory", "disk"])
def test_an_alarm_holds_writers_back_and_nobody_else(
    small_stack: Stack,
    rabbitmq_node: RabbitMqNode,
    broker_url: str,
    storage_config: StorageConfig,
    checker: Checker,
    resource: str,
) -> None:
    workers = small_stack.start_workers()
    small_stack.start_gateway(listen=small_stack.address, batch_size=10)
    workers.terminate()
    # Of each queue more packages than a worker takes in hand: their delivery acks have to get through too.
    backlog = dict.fromkeys((entry_id(number) for number in range(3000)), DATE)
    with Writing(small_stack.address, checker) as writing, connected(small_stack.address) as (_, stub):
        waiting = writing.begin("content_add", backlog)
        writing.wait_published(len(backlog))
        with alarm(rabbitmq_node, resource):
            workers.start()
            workers.wait_ready()
            eventually(lambda: stored_count(storage_config, backlog) == len(backlog), "the backlog is stored", 60)
            with AmqpSender(broker_url) as sender:
                sender.wait_until(lambda: waiting_count(sender) == 0, 60)
            # The broker says that it blocks a connection once something is published on it.
            write(stub.ContentAdd, [contents(1)], timeout_s=1.0)
            assert_blocked(write(stub.ContentAdd, [contents(5)], timeout_s=1.0))
            held_back = writing.begin("content_add", {entry_id(number): DATE for number in range(3000, 3100)})
            assert outcome_of(stub.EntityGetAll(CONTENTS, timeout=10)).ok
            assert not held_back.done()
            assert not waiting.done()
        assert waiting.result(RECOVERED_S)
        assert held_back.result(RECOVERED_S)
    # What the raw calls sent is of the backlog too.
    check(checker, storage_config)


def waiting_count(sender: AmqpSender) -> int:
    return sum(sender.message_count(f"content_add.unknown.{number:x}") for number in range(FEW_RANGES["content"]))


def assert_blocked(outcome: Outcome) -> None:
    assert (outcome.code, outcome.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BROKER_BLOCKED")
    assert "RetryInfo" in outcome.details
    assert outcome.counts == (5, 0, 0)


def test_what_is_lost_with_the_publisher_alone_is_published_again(
    small_stack: Stack, rabbitmq_node: RabbitMqNode, storage_config: StorageConfig, checker: Checker
) -> None:
    small_stack.start()
    with Writing(small_stack.address, checker) as writing, connected(small_stack.address) as (_, stub):
        with alarm(rabbitmq_node, "memory"):
            # It is published before the broker says that it blocks the connection, and read by nobody.
            lost = writing.begin("content_add", [entry_id(number) for number in range(100)])
            assert_blocked(write(stub.ContentAdd, [contents(5)], timeout_s=1.0))
            close_connection(rabbitmq_node, "provgate-gateway publisher")
        assert lost.result(RECOVERED_S)
    check(checker, storage_config)


def close_connection(node: RabbitMqNode, name: str) -> None:
    given = "proplists:get_value(client_properties, rabbit_reader:info(P, [client_properties]))"
    is_named = f'lists:member({{<<"connection_name">>, longstr, <<"{name}">>}}, {given})'
    closed = f'rabbit_networking:close_connection(P, "a test") || P <- rabbit_networking:connections(), {is_named}'
    assert node.evaluate(f"[{closed}].") == "[ok]"


def test_a_backlog_that_causes_an_alarm_is_drained(
    small_stack: Stack, rabbitmq_node: RabbitMqNode, storage_config: StorageConfig, checker: Checker
) -> None:
    small_stack.start()
    (workers,) = small_stack.workers
    workers.terminate()
    used = int(rabbitmq_node.ctl("eval", "vm_memory_monitor:get_process_memory()."))
    rabbitmq_node.ctl("set_vm_memory_high_watermark", "absolute", str(used + 48 * MIB))
    try:
        with Writing(small_stack.address, checker) as writing:
            begun = [writing.begin("relation_add", RelationType.CNT_IN_DIR, long_rows(n)) for n in range(12)]
            eventually(lambda: "memory" in alarms(rabbitmq_node), "the backlog causes an alarm", 60)
            workers.start()
            eventually(lambda: row_count(storage_config) == 12 * LONG_ROW_COUNT, "the backlog is stored", 60)
            eventually(lambda: gives_memory_back(rabbitmq_node), "the alarm ends", 60)
            assert all(each.result(RECOVERED_S) for each in begun)
    finally:
        rabbitmq_node.ctl("set_vm_memory_high_watermark", "0.4")
    check(checker, storage_config)


def row_count(storage_config: StorageConfig) -> int:
    with get_provenance_storage(**storage_config) as storage:
        return len(storage.relation_get_all(RelationType.CNT_IN_DIR))


def gives_memory_back(node: RabbitMqNode) -> bool:
    # A quorum queue's log keeps bodies in memory, consumed ones too, until its file is full or an alarm has it begin
    # another one; the broker does that for one alarm in 20 s, and an earlier test may have had it. What idle processes
    # of the broker have let go is free once they are looked at.
    node.evaluate("ra_log_wal:force_roll_over(ra_log_wal).")
    node.ctl("force_gc")
    return "memory" not in alarms(node)


def test_a_full_queue_refuses_and_takes_more_once_there_is_room(
    broker_url: str, storage_config: StorageConfig, stack_directory: StackDirectory, checker: Checker
) -> None:
    overrides = {"rabbitmq": {"ranges": FEW_RANGES, "queue_max_length_bytes": MIB}}
    stack = Stack(broker_url, storage_config, stack_directory, overrides, f"faults-{secrets.token_hex(4)}")
    stack.start()
    (workers,) = stack.workers
    workers.terminate()
    with Writing(stack.address, checker, retry_time_s=0) as writing:
        refused = [writing.begin("relation_add", RelationType.CNT_IN_DIR, long_rows(n)) for n in range(4)]
        error = refused[-1].exception(RECOVERED_S)
        assert isinstance(error, GatewayBusyError)
        assert error.status.reason == "QUEUE_FULL"
        assert error.status.retry_delay_s is not None
    with Writing(stack.address, checker, retry_time_s=200) as writing:
        begun = [writing.begin("relation_add", RelationType.CNT_IN_DIR, long_rows(n)) for n in range(4, 8)]
        assert not any(each.done() for each in begun)
        workers.start()
        assert all(each.result(100) for each in begun)
    check(checker, storage_config)
    stack.stop()


def long_rows(number: int) -> dict[bytes, set[RelationData]]:
    """Returns rows of 8 MiB in all."""
    ids = [entry_id(number * LONG_ROW_COUNT + each) for each in range(LONG_ROW_COUNT)]
    return {id: {RelationData(id, (id.hex().encode() * 103)[:4096])} for id in ids}
