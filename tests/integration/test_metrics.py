"""What gateway and workers count while they work: real servers, and the text that Prometheus reads."""

from __future__ import annotations

import re
import socket
from functools import partial
from typing import Any

import grpc
import psutil
import pytest

from provgate.v1 import provenance_storage_pb2 as pb2
from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE, QUARANTINE_QUEUE
from provgate_broker.topology.policy import OPERATIONS, Exchange, WriteMethod
from provgate_client.storage import ProvenanceStorageGrpc
from provgate_gateway.rpc.handler_wrappers import methods_by_path
from provgate_stack.stack import Stack
from provgate_workers.metrics import CallOutcome
from tests.support.fix_stack import FEW_RANGES
from tests.support.gateway_calls import OpenWrite, connected, contents, write
from tests.support.packages import AmqpSender, content_ids, publish
from tests.support.polling import eventually
from tests.support.watch_port import expect, probe, samples, value

READY_S = 60.0
ENTRY_COUNT = 3_000


def test_all_counters_agree_on_a_write(small_stack: Stack) -> None:
    small_stack.start()
    gateway, workers = small_stack.metrics_addresses()
    with ProvenanceStorageGrpc(url=small_stack.address) as storage:
        assert storage.content_add(content_ids(ENTRY_COUNT))
        assert storage.content_find_first(content_ids(1)[0]) is None
    for state in ("received", "published", "confirmed", "acked"):
        expect(gateway, ENTRY_COUNT, f"provgate_gateway_entries_{state}_total", method="content_add")
        assert value(gateway, f"provgate_gateway_entries_{state}_total") == ENTRY_COUNT
    packages = value(gateway, "provgate_gateway_package_entries_count", method="content_add")
    assert packages >= FEW_RANGES["content"]
    assert value(gateway, "provgate_gateway_package_entries_sum", method="content_add") == ENTRY_COUNT
    for histogram in ("package_bytes", "publish_to_confirm_seconds", "publish_to_ack_seconds"):
        assert value(gateway, f"provgate_gateway_{histogram}_count", method="content_add") == packages
    assert value(gateway, "provgate_gateway_publications_total", exchange="content") == packages
    assert value(gateway, "provgate_gateway_republications_total") == 0
    assert value(gateway, "provgate_gateway_unacked_entries") == 0
    assert value(gateway, "provgate_gateway_unacked_bytes") == 0
    assert value(gateway, "provgate_gateway_unacked_bound_entries") == 2_000_000

    assert value(workers, "provgate_workers_rows_stored_total", operation="content_add") == ENTRY_COUNT
    assert value(workers, "provgate_workers_batch_rows_sum", operation="content_add") == ENTRY_COUNT
    assert value(workers, "provgate_workers_deliveries_total", operation="content_add") == packages
    assert value(workers, "provgate_workers_replies_total", kind="ack") == packages
    commits = value(workers, "provgate_workers_storage_calls_total", operation="content_add", outcome="committed")
    assert 0 < commits == value(workers, "provgate_workers_commit_seconds_count", operation="content_add")
    assert value(workers, "provgate_workers_batch_bytes_count", operation="content_add") == commits


def test_connections_and_processes_are_shown(shared_stack: Stack) -> None:
    gateway, workers = shared_stack.metrics_addresses()
    for connection in ("publisher", "replies"):
        expect(gateway, 1, "provgate_gateway_broker_connected", connection=connection)
    for connection in ("deliveries", "replies"):
        expect(workers, 2, "provgate_workers_connected_processes", connection=connection)
    assert value(workers, "provgate_workers_processes") == 2
    assert value(workers, "provgate_workers_storage_troubled_processes") == 0
    assert value(workers, "provgate_workers_in_hand_bound_bytes") == 256 * 1024 * 1024


def test_calls_are_counted_by_how_they_end(small_stack: Stack) -> None:
    small_stack.start()
    gateway, _ = small_stack.metrics_addresses()

    calls = partial(expect, gateway, 1, "provgate_gateway_calls_total")
    in_flight = partial(expect, gateway, name="provgate_gateway_calls_in_flight", method="content_add")
    with connected(small_stack.address) as (_, stub):
        stub.WithPath(pb2.WithPathRequest(), timeout=5)
        calls(method="with_path", code="OK")
        with pytest.raises(grpc.RpcError):
            stub.ContentFindFirst(pb2.ContentFindFirstRequest(id=b"short"), timeout=5)
        calls(method="content_find_first", code="INVALID_ARGUMENT")
        opened = OpenWrite(stub)
        opened.send(contents(1))
        in_flight(expected=1)
        opened.cancel()
        calls(method="content_add", code="CANCELLED")
        in_flight(expected=0)
    assert value(gateway, "provgate_gateway_call_duration_seconds_count", method="content_find_first") >= 1


def test_labels_are_what_the_service_and_the_topology_have(shared_stack: Stack) -> None:
    gateway, workers = shared_stack.metrics_addresses()
    with connected(shared_stack.address) as (channel, _), pytest.raises(grpc.RpcError):
        unknown_method(channel)
    allowed = {
        "method": {*methods_by_path().values(), *WriteMethod},
        "code": {code.name for code in grpc.StatusCode},
        "exchange": set(Exchange),
        "operation": {operation.label for operation in OPERATIONS},
        "outcome": set(CallOutcome),
        "connection": {"publisher", "deliveries", "replies"},
        "reason": {"malformed", "refused", "poison", "unexpected"},
        "kind": {"ack", "nack"},
        "range": {f"{number:x}" for number in range(256)},
        "queue": {DEAD_LETTER_QUEUE, QUARANTINE_QUEUE},
    }
    for sample in (*samples(gateway), *samples(workers)):
        assert sample.name.startswith(("provgate_gateway_", "provgate_workers_"))
        for label, found in sample.labels.items():
            assert label == "le" or found in allowed[label], sample


def unknown_method(channel: grpc.Channel) -> None:
    call: Any = channel.unary_unary("/provgate.v1.ProvenanceStorage/NoSuchMethod")
    call(b"", timeout=5)


def test_what_a_process_has_counted_outlives_it_and_its_redeliveries_are_counted(
    small_stack: Stack, amqp_url: str
) -> None:
    program = small_stack.start_workers(processes=1)
    workers = program.metrics_address
    with AmqpSender(amqp_url) as sender:
        sender.replies_to(*publish(sender, content_ids(100), package_size=10))
        stored = partial(value, workers, "provgate_workers_rows_stored_total", operation="content_add")
        assert stored() == 100
        (child,) = psutil.Process(program.pid).children()
        # What it has in hand when it is killed comes again.
        child.suspend()
        ids = publish(sender, content_ids(100, "more"), package_size=10)
        eventually(lambda: sender.message_count("content_add.unknown.0") == 0, "packages are on their way to it")
        child.kill()
        sender.replies_to(*ids, timeout_s=READY_S)
        assert stored() == 200
        assert value(workers, "provgate_workers_redeliveries_total", operation="content_add") >= 1
        assert value(workers, "provgate_workers_process_restarts_total") == 1
        # What was so of the killed one is forgotten.
        expect(workers, 1, "provgate_workers_connected_processes", connection="deliveries")
        expect(workers, 1, "provgate_workers_processes")
    assert program.terminate() == 0


def test_dead_letters_are_counted_by_their_reason(small_stack: Stack, amqp_url: str) -> None:
    workers = small_stack.start_workers().metrics_address
    with AmqpSender(amqp_url) as sender:
        sender.call("content", "content_add.unknown.0", b"no package", headers={"provgate-nack": True})
    assert value(workers, "provgate_workers_dead_letters_total", reason="malformed") == 1
    assert value(workers, "provgate_workers_dead_letters_total") == 1
    assert value(workers, "provgate_workers_replies_total", kind="nack") == 1


def test_a_statsd_server_is_told_durations(small_stack: Stack) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(20)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        small_stack.start_workers(statsd=address)
        small_stack.start_gateway(listen=small_stack.address, statsd=address)
        with connected(small_stack.address) as (_, stub):
            assert write(stub.ContentAdd, [contents(5)]).ok
        wanted = {"provgate.gateway.content_add", "provgate.workers.content_add"}
        while wanted:
            line = server.recv(1024).decode("ascii")
            matched = re.fullmatch(r"(provgate\.[a-z_.]+):([0-9]+\.[0-9]{6})\|ms", line)
            assert matched, line
            assert 0 < float(matched[2]) < 60_000
            wanted.discard(matched[1])


def test_a_statsd_server_that_is_not_found_is_one_warning(small_stack: Stack) -> None:
    workers = small_stack.start_workers(statsd="no-such-host.invalid:8125")
    gateway = small_stack.start_gateway(statsd="no-such-host.invalid:8125")
    for program, section in ((workers, "rabbitmq"), (gateway, "gateway")):
        assert program.log_path.read_text().count(f"provenance.{section}.statsd: no durations are sent") == 1
    eventually(lambda: probe(gateway.metrics_address, "/readyz").ok, "the gateway is ready all the same")
