"""Calls that outlive the gateway's connections. The broker is private: these tests close and stop it."""

from __future__ import annotations

import secrets
import threading
from collections import defaultdict
from collections.abc import Iterator

import grpc
import pytest

from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_stack.directory import StackDirectory
from provgate_stack.rabbitmq import RabbitMqNode
from provgate_stack.stack import Stack
from tests.integration.gateway_calls import OpenWrite, connected, contents, eventually, health, wait_serving, write
from tests.integration.scripted_workers import Request, ScriptedWorkers, in_full, set_up, silent

Connected = tuple[grpc.Channel, ProvenanceStorageStub]


@pytest.fixture(scope="module")
def vhost_url(rabbitmq_node: RabbitMqNode) -> Iterator[str]:
    name = f"connections-{secrets.token_hex(4)}"
    rabbitmq_node.add_vhost(name)
    yield rabbitmq_node.url(name)
    rabbitmq_node.delete_vhost(name)


@pytest.fixture(scope="module")
def module_workers(vhost_url: str, module_postgres_dsn: str) -> Iterator[ScriptedWorkers]:
    set_up(vhost_url, module_postgres_dsn)
    with ScriptedWorkers(vhost_url) as workers:
        yield workers


@pytest.fixture
def workers(module_workers: ScriptedWorkers) -> ScriptedWorkers:
    module_workers.reset()
    return module_workers


@pytest.fixture(scope="module")
def gateway(
    module_workers: ScriptedWorkers, vhost_url: str, module_postgres_dsn: str, stack_directory: StackDirectory
) -> Iterator[Connected]:
    stack = Stack(vhost_url, module_postgres_dsn, stack_directory, name=f"connections-{secrets.token_hex(4)}")
    program = stack.start_gateway(batch_size=10)
    with connected(program.address) as connection:
        yield connection
    assert program.terminate() == 0
    assert "Traceback" not in program.log_path.read_text(encoding="utf-8")


def _begun(stub: ProvenanceStorageStub, workers: ScriptedWorkers) -> OpenWrite:
    """Returns a call whose first 160 entries are published and not answered."""
    workers.script = silent
    call = OpenWrite(stub, timeout_s=60)
    call.send(contents(160))
    call.wait_for(lambda progress: progress.published_count == 160)
    workers.wait_for(16)
    return call


def _by_body(requests: list[Request]) -> dict[bytes, list[Request]]:
    found: dict[bytes, list[Request]] = defaultdict(list)
    for request in requests:
        found[request.body].append(request)
    return found


def test_a_call_outlives_all_connections(
    gateway: Connected, workers: ScriptedWorkers, rabbitmq_node: RabbitMqNode
) -> None:
    channel, stub = gateway
    call = _begun(stub, workers)
    workers.script = in_full
    rabbitmq_node.ctl("close_all_connections", "--global", "a test")
    call.send(contents(40, start=160))
    outcome = call.end()
    assert outcome.counts == (200, 200, 200)
    again = [requests for requests in _by_body(workers.requests).values() if len(requests) > 1]
    assert len(again) == 16
    for requests in again:
        # Replies to the first are lost with its queue: the second has an id and a reply queue of its own.
        assert len({request.correlation_id for request in requests}) == len(requests)
        assert len({request.properties.reply_to for request in requests}) == 2
    wait_serving(channel)


def test_a_call_outlives_its_connections_again_and_again(
    gateway: Connected, workers: ScriptedWorkers, rabbitmq_node: RabbitMqNode
) -> None:
    closing = threading.Event()

    def close() -> None:
        while not closing.wait(0.3):
            rabbitmq_node.evaluate(
                '[rabbit_networking:close_connection(P, "a test") || P <- rabbit_networking:connections()].'
            )

    closer = threading.Thread(target=close)
    closer.start()
    try:
        call = OpenWrite(gateway[1], timeout_s=60)
        for part in range(10):
            call.send(contents(200, start=200 * part))
            threading.Event().wait(0.15)
    finally:
        closing.set()
        closer.join()
    assert call.end().counts == (2000, 2000, 2000)


def test_a_call_outlives_a_restart_of_the_broker(
    gateway: Connected, workers: ScriptedWorkers, rabbitmq_node: RabbitMqNode
) -> None:
    channel, stub = gateway
    call = _begun(stub, workers)
    workers.script = in_full
    rabbitmq_node.stop()
    try:
        eventually(lambda: health(channel, "provgate.broker") == "NOT_SERVING", "health knows")
        assert health(channel) == "NOT_SERVING"
        assert health(channel, "provgate.storage") == "SERVING"
        call.send(contents(40, start=160))
        assert call.wait_for(lambda progress: progress.received_count == 200).published_count == 160
        outcome = write(stub.ContentAdd, [contents(5)], timeout_s=0.5)
        assert (outcome.code, outcome.reason) == (grpc.StatusCode.UNAVAILABLE, "BROKER_UNAVAILABLE")
        assert "RetryInfo" in outcome.details
        assert outcome.counts == (5, 0, 0)
    finally:
        rabbitmq_node.start()
    assert call.end().counts == (200, 200, 200)
    wait_serving(channel)


def test_a_broker_that_blocks_publishers(
    gateway: Connected, workers: ScriptedWorkers, rabbitmq_node: RabbitMqNode
) -> None:
    _, stub = gateway
    rabbitmq_node.ctl("set_vm_memory_high_watermark", "0.000001")
    try:
        # The broker says that it blocks a connection once something is published on it.
        write(stub.ContentAdd, [contents(1)], timeout_s=1.0)
        outcome = write(stub.ContentAdd, [contents(5)], timeout_s=0.5)
        assert (outcome.code, outcome.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BROKER_BLOCKED")
        assert "RetryInfo" in outcome.details
        assert outcome.counts == (5, 0, 0)
        call = OpenWrite(stub, timeout_s=30)
        call.send(contents(7))
        assert call.wait_for(lambda progress: progress.received_count == 7).published_count == 0
    finally:
        rabbitmq_node.ctl("set_vm_memory_high_watermark", "0.4")
    assert call.end().counts == (7, 7, 7)
