"""What the gateway makes of the workers' replies. The workers are scripts of these tests; all else is real."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import msgpack
import pika
import pytest
from pika.spec import BasicProperties

from provgate.v1 import model_pb2
from provgate.v1 import provenance_storage_pb2 as pb2
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_broker.wire.package import encode_reply
from provgate_stack.processes.directory import StackDirectory
from provgate_stack.servers.postgresql import postgresql_storage
from provgate_stack.stack import Stack
from tests.support.gateway_calls import OpenWrite, connected, contents, health, outcome_of, outcome_of_unary, write
from tests.support.scripted_workers import (
    Answer,
    Request,
    ScriptedWorkers,
    counts,
    delete_exchange,
    delete_queue,
    in_full,
    refusal,
    replace_queue,
    set_up,
    silent,
)

BATCH_SIZE = 10
WAIT_MIN_S = 1.2

# A deadline that comes before the gateway's patience ends.
SHORT_S = 0.7

Connected = tuple[grpc.Channel, ProvenanceStorageStub]


@pytest.fixture(scope="module")
def gateway(workerless_stack: Stack) -> Iterator[Connected]:
    program = workerless_stack.start_gateway(batch_size=BATCH_SIZE, wait_min=WAIT_MIN_S, wait_per_batch=0)
    with connected(program.address) as connection:
        yield connection
    assert program.terminate() == 0
    assert "Traceback" not in program.log_path.read_text(encoding="utf-8")


@pytest.fixture
def stub(gateway: Connected, scripted_workers: ScriptedWorkers) -> ProvenanceStorageStub:
    return gateway[1]


@pytest.fixture(scope="module")
def existing(
    workerless_stack: Stack, module_amqp_url: str, module_postgres_dsn: str, stack_directory: StackDirectory
) -> Iterator[Connected]:
    """A gateway in front of another deployment's workers."""
    stack = Stack(
        module_amqp_url,
        postgresql_storage(module_postgres_dsn),
        stack_directory,
        {"rabbitmq": {"topology": "existing"}},
        name=f"existing-{secrets.token_hex(4)}",
    )
    program = stack.start_gateway(batch_size=BATCH_SIZE)
    with connected(program.address) as connection:
        yield connection
    assert program.terminate() == 0


def test_a_write_is_acked_in_full(stub: ProvenanceStorageStub) -> None:
    outcome = write(stub.ContentAdd, [contents(100), contents(400, start=100)])
    assert outcome.ok
    assert outcome.counts == (500, 500, 500)


def test_packages_are_published_as_existing_workers_expect_them(
    stub: ProvenanceStorageStub, scripted_workers: ScriptedWorkers
) -> None:
    assert write(stub.ContentAdd, [contents(500)]).ok
    requests = scripted_workers.requests
    assert len(requests) == 16 * -(-500 // 16 // BATCH_SIZE)
    assert len({request.correlation_id for request in requests}) == len(requests)
    for request in requests:
        given = {name: value for name, value in vars(request.properties).items() if value is not None}
        assert given.pop("correlation_id")
        assert given.pop("reply_to").startswith("amq.gen-")
        assert given == {
            "content_type": "application/msgpack",
            "delivery_mode": 2,
            "headers": {"provgate-nack": True},
        }
        assert request.exchange == "content"
        assert request.routing_key == request.queue
        assert 1 <= len(request.entries) <= BATCH_SIZE
    sent = {content.id for content in contents(500).contents}
    assert sorted(entry[0] for request in requests for entry in request.entries) == sorted(sent)


WRITES: list[tuple[str, Callable[[], Any]]] = [
    ("ContentAdd", pb2.ContentAddRequest),
    ("DirectoryAdd", pb2.DirectoryAddRequest),
    ("RevisionAdd", pb2.RevisionAddRequest),
    ("OriginAdd", pb2.OriginAddRequest),
    ("LocationAdd", pb2.LocationAddRequest),
    ("RelationAdd", lambda: pb2.RelationAddRequest(relation=model_pb2.RELATION_TYPE_REV_IN_ORG)),
]


@pytest.mark.parametrize("message_count", [0, 3])
@pytest.mark.parametrize(("method", "empty"), WRITES)
def test_a_write_of_nothing_ends_well(
    stub: ProvenanceStorageStub,
    scripted_workers: ScriptedWorkers,
    method: str,
    empty: Callable[[], Any],
    message_count: int,
) -> None:
    outcome = write(getattr(stub, method), [empty() for _ in range(message_count)])
    assert outcome.ok
    assert outcome.counts == (0, 0, 0)
    assert not scripted_workers.requests


def test_acks_are_told_while_the_call_is_open(stub: ProvenanceStorageStub) -> None:
    call = OpenWrite(stub)
    for message in range(3):
        call.send(contents(7, start=7 * message))
        call.wait_for(lambda progress, sent=7 * (message + 1): progress.acked_count == sent)  # type: ignore[misc]
    outcome = call.end()
    assert outcome.ok
    assert outcome.counts == (21, 21, 21)


def test_what_the_workers_do_not_answer_is_published_and_not_acked(
    stub: ProvenanceStorageStub, scripted_workers: ScriptedWorkers
) -> None:
    scripted_workers.script = silent
    outcome = write(stub.ContentAdd, [contents(25)], timeout_s=SHORT_S)
    assert outcome.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert outcome.reason == "NO_PROGRESS"
    assert outcome.counts == (25, 25, 0)
    # The gateway's own status, which a client that counts its deadline down would not get after it.
    assert SHORT_S / 2 < outcome.elapsed_s < SHORT_S


def test_a_write_without_a_deadline_ends_when_nothing_goes_on(
    stub: ProvenanceStorageStub, scripted_workers: ScriptedWorkers
) -> None:
    scripted_workers.script = silent
    outcome = write(stub.ContentAdd, [contents(25)], timeout_s=None)
    assert outcome.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert outcome.reason == "NO_PROGRESS"
    assert outcome.counts == (25, 25, 0)
    assert WAIT_MIN_S <= outcome.elapsed_s < WAIT_MIN_S + 1


def test_what_was_acked_before_the_deadline_is_in_the_counts(
    stub: ProvenanceStorageStub, scripted_workers: ScriptedWorkers
) -> None:
    scripted_workers.script = lambda request: in_full(request) if request.queue.endswith(".0") else []
    outcome = write(stub.ContentAdd, [contents(32)], timeout_s=SHORT_S)
    assert outcome.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert outcome.counts == (32, 32, 2)


def _all_but_one_twice(request: Request) -> list[Answer]:
    return counts(len(request.entries) - 1, 1)


def test_partial_replies_count_for_nothing(stub: ProvenanceStorageStub, scripted_workers: ScriptedWorkers) -> None:
    scripted_workers.script = _all_but_one_twice
    outcome = write(stub.ContentAdd, [contents(8, first_byte=0)], timeout_s=SHORT_S)
    assert outcome.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert outcome.counts == (8, 8, 0)


def test_a_full_reply_after_partial_ones_counts(stub: ProvenanceStorageStub, scripted_workers: ScriptedWorkers) -> None:
    scripted_workers.script = lambda request: [*_all_but_one_twice(request), *in_full(request)]
    assert write(stub.ContentAdd, [contents(8, first_byte=0)]).counts == (8, 8, 8)


def test_duplicate_replies_count_once(stub: ProvenanceStorageStub, scripted_workers: ScriptedWorkers) -> None:
    scripted_workers.script = lambda request: in_full(request) * 3
    assert write(stub.ContentAdd, [contents(100)]).counts == (100, 100, 100)


def test_replies_to_unknown_ids_are_ignored(stub: ProvenanceStorageStub, scripted_workers: ScriptedWorkers) -> None:
    scripted_workers.script = lambda request: [
        Answer(encode_reply(100), correlation_id="unknown"),
        Answer(encode_reply(100), correlation_id=""),
        Answer(encode_reply(0), correlation_id="unknown"),
    ]
    outcome = write(stub.ContentAdd, [contents(3)], timeout_s=SHORT_S)
    assert outcome.counts == (3, 3, 0)
    scripted_workers.script = lambda request: [Answer(encode_reply(9), correlation_id="unknown"), *in_full(request)]
    assert write(stub.ContentAdd, [contents(3)]).counts == (3, 3, 3)


UNDECODABLE = [
    b"",
    b"\xc1",
    b"\xff\xff",
    b"text",
    msgpack.packb("10"),
    msgpack.packb(-1),
    msgpack.packb(True),
    msgpack.packb(1.0),
    msgpack.packb(None),
    msgpack.packb([10]),
    msgpack.packb({"error": "e"}),
    msgpack.packb({"error": 1, "message": 2, "rejected": 3}),
    msgpack.packb({b"error": "e", b"message": "m", b"rejected": 1}),
    msgpack.packb(10) + b"\x00",
    msgpack.packb(msgpack.Timestamp(2**60)),
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\x91" * 100_000,
    b"\x81\xa1a" * 100_000,
    b"\x81" * 100_000,
    b"\xc4\xff" * 100_000,
]


def test_undecodable_replies_are_ignored(stub: ProvenanceStorageStub, scripted_workers: ScriptedWorkers) -> None:
    scripted_workers.script = lambda request: [*map(Answer, UNDECODABLE), *in_full(request)]
    assert write(stub.ContentAdd, [contents(3)]).counts == (3, 3, 3)


HOSTILE_PROPERTIES: list[dict[str, Any]] = [
    {},
    {"correlation_id": "c" * 255},
    {"correlation_id": b"\xff\xfe"},
    {"correlation_id": "\n\0\x1b[31m", "reply_to": "amq.gen-" + "x" * 247, "content_type": "\n"},
    {"headers": {"provgate-nack": ["x"] * 1000, "h" * 255: {"deep": {"deeper": [None, 2**63 - 1, True]}}}},
    {"priority": 255, "expiration": "60000", "type": "t" * 255, "app_id": "a" * 255},
]


def test_what_a_stranger_puts_into_the_reply_queue_is_ignored(
    stub: ProvenanceStorageStub, scripted_workers: ScriptedWorkers, module_amqp_url: str
) -> None:
    def hostile(request: Request) -> list[Answer]:
        with pika.BlockingConnection(pika.URLParameters(module_amqp_url)) as connection:
            amqp_channel = connection.channel()
            for properties in HOSTILE_PROPERTIES:
                for body in (b"", encode_reply(BATCH_SIZE), b"\xdf" * 1_000_000):
                    reply_queue = str(request.properties.reply_to)
                    amqp_channel.basic_publish("", reply_queue, body, BasicProperties(**properties))
        return in_full(request)

    scripted_workers.script = hostile
    assert write(stub.ContentAdd, [contents(BATCH_SIZE)]).counts == (BATCH_SIZE, BATCH_SIZE, BATCH_SIZE)


def test_a_reply_that_comes_after_its_call_is_ignored(
    stub: ProvenanceStorageStub, scripted_workers: ScriptedWorkers
) -> None:
    scripted_workers.script = silent
    assert write(stub.ContentAdd, [contents(5, first_byte=0)], timeout_s=SHORT_S).counts == (5, 5, 0)
    (request,) = scripted_workers.wait_for(1)
    scripted_workers.script = in_full
    call = OpenWrite(stub)
    call.send(contents(3))
    scripted_workers.answer(request, *in_full(request))
    assert call.end().counts == (3, 3, 3)


def test_a_refused_package_fails_the_call(stub: ProvenanceStorageStub, scripted_workers: ScriptedWorkers) -> None:
    scripted_workers.script = lambda request: refusal(request) if request.queue.endswith(".1") else in_full(request)
    call = OpenWrite(stub)
    call.send(contents(4, first_byte=0x00))
    call.wait_for(lambda progress: progress.acked_count == 4)
    call.send(contents(5, first_byte=0x10))
    outcome = call.end()
    assert outcome.code is grpc.StatusCode.INVALID_ARGUMENT
    assert outcome.reason == "PACKAGE_REFUSED"
    assert outcome.details["ErrorInfo"].metadata["worker_reason"] == "malformed"
    assert outcome.details["ErrorInfo"].metadata["rejected_count"] == "5"
    # A worker's text may quote the database.
    assert "a row is short" not in outcome.message
    assert outcome.counts[0] == 9
    assert outcome.counts[2] == 4
    assert "RetryInfo" not in outcome.details


def test_a_missing_queue_fails_the_call(stub: ProvenanceStorageStub, module_amqp_url: str) -> None:
    delete_queue(module_amqp_url, "revision_add.unknown.7")
    revision = model_pb2.Revision(id=b"\x70" * 20)
    outcome = write(stub.RevisionAdd, [pb2.RevisionAddRequest(revisions=[revision])])
    assert outcome.code is grpc.StatusCode.FAILED_PRECONDITION
    assert outcome.reason == "UNROUTABLE"
    metadata = outcome.details["ErrorInfo"].metadata
    assert (metadata["exchange"], metadata["routing_key"]) == ("revision", "revision_add.unknown.7")
    assert outcome.counts == (1, 0, 0)
    assert "RetryInfo" not in outcome.details
    other = model_pb2.Revision(id=b"\x60" * 20)
    assert write(stub.RevisionAdd, [pb2.RevisionAddRequest(revisions=[other])]).ok


def test_a_missing_exchange_fails_its_calls_alone(
    stub: ProvenanceStorageStub, module_amqp_url: str, module_postgres_dsn: str
) -> None:
    delete_exchange(module_amqp_url, "origin")
    try:
        origin = model_pb2.Origin(id=b"\x10" * 20, url="https://example.org/")
        with ThreadPoolExecutor(2) as threads:
            lost = threads.submit(write, stub.OriginAdd, [pb2.OriginAddRequest(origins=[origin])])
            others = [threads.submit(write, stub.ContentAdd, [contents(50)]) for _ in range(5)]
        assert lost.result().code is grpc.StatusCode.FAILED_PRECONDITION
        assert lost.result().reason == "UNROUTABLE"
        assert lost.result().details["ErrorInfo"].metadata["exchange"] == "origin"
        assert all(other.result().ok for other in others)
    finally:
        set_up(module_amqp_url, postgresql_storage(module_postgres_dsn))


def test_a_deadline_counts_also_under_steady_acks(stub: ProvenanceStorageStub) -> None:
    call = OpenWrite(stub, timeout_s=1.0)
    ended = threading.Event()

    def keep_sending() -> None:
        while not ended.wait(0.002):
            call.send(contents(1))

    with ThreadPoolExecutor(1) as threads:
        threads.submit(keep_sending)
        outcome = outcome_of(call.call)
        ended.set()
    call.half_close()
    assert outcome.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert outcome.reason == "NO_PROGRESS"
    assert int(outcome.details["ErrorInfo"].metadata["acked_count"]) > 0


def test_a_refusal_of_the_broker_is_told_without_a_cause_that_is_not_known(
    stub: ProvenanceStorageStub, module_amqp_url: str
) -> None:
    # As an operator's policy may limit it: the queue is nowhere near the length that set-up gives it.
    limits = {"x-queue-type": "quorum", "x-overflow": "reject-publish", "x-max-length": 1}
    replace_queue(module_amqp_url, "location_add.unknown.f", limits)
    numbers = (b"%d" % number for number in range(10_000))
    paths = [number for number in numbers if hashlib.sha1(number).hexdigest()[0] == "f"]
    # A quorum queue takes what comes in one go before it says that it is full.
    write(stub.LocationAdd, [pb2.LocationAddRequest(paths=paths)], timeout_s=0.5)
    outcome = write(stub.LocationAdd, [pb2.LocationAddRequest(paths=paths)])
    assert outcome.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert outcome.reason == "BROKER_REFUSED"
    assert outcome.details["ErrorInfo"].metadata["routing_key"] == "location_add.unknown.f"
    assert outcome.details["RetryInfo"].retry_delay.ToSeconds() >= 1
    assert outcome.counts == (len(paths), 0, 0)


def test_calls_at_once_do_not_mix(stub: ProvenanceStorageStub, scripted_workers: ScriptedWorkers) -> None:
    scripted_workers.script = lambda request: in_full(request) if request.queue.startswith("content") else []
    unanswered = pb2.DirectoryAddRequest(directories=[model_pb2.Directory(id=c.id) for c in contents(40).contents])
    with ThreadPoolExecutor(2) as threads:
        answered = threads.submit(write, stub.ContentAdd, [contents(100)])
        waiting = threads.submit(write, stub.DirectoryAdd, [unanswered], SHORT_S)
    assert answered.result().counts == (100, 100, 100)
    assert waiting.result().counts == (40, 40, 0)


def test_many_calls_at_once_are_all_acked(stub: ProvenanceStorageStub) -> None:
    start = threading.Barrier(8)

    def call(number: int) -> tuple[int, int, int]:
        start.wait(10)
        return write(stub.ContentAdd, [contents(50, start=1000 * number + 50 * part) for part in range(6)]).counts

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(call, range(8))) == [(300, 300, 300)] * 8


def test_with_a_topology_of_others_replies_are_added_up(existing: Connected, scripted_workers: ScriptedWorkers) -> None:
    scripted_workers.script = _all_but_one_twice
    assert write(existing[1].ContentAdd, [contents(8, first_byte=0)]).counts == (8, 8, 8)


READS: list[tuple[str, Any]] = [
    ("ContentGet", pb2.ContentGetRequest()),
    ("DirectoryGet", pb2.DirectoryGetRequest()),
    ("RevisionGet", pb2.RevisionGetRequest()),
    ("OriginGet", pb2.OriginGetRequest()),
    ("RelationGet", pb2.RelationGetRequest(relation=model_pb2.RELATION_TYPE_CNT_IN_DIR)),
    ("RelationGetAll", pb2.RelationGetAllRequest(relation=model_pb2.RELATION_TYPE_CNT_IN_DIR)),
    ("EntityGetAll", pb2.EntityGetAllRequest(entity=model_pb2.ENTITY_TYPE_CONTENT)),
    ("LocationGetAll", pb2.LocationGetAllRequest()),
    ("ContentFindAll", pb2.ContentFindAllRequest(id=b"\x01" * 20)),
]
UNARY_READS: list[tuple[str, Any]] = [
    ("ContentFindFirst", pb2.ContentFindFirstRequest(id=b"\x01" * 20)),
    ("WithPath", pb2.WithPathRequest()),
]


@pytest.mark.parametrize(("method", "request_message"), [*READS, *UNARY_READS])
def test_with_a_topology_of_others_reads_are_not_available(
    existing: Connected, method: str, request_message: Any
) -> None:
    call = getattr(existing[1], method)
    if (method, request_message) in UNARY_READS:
        outcome = outcome_of_unary(lambda: call(request_message, timeout=5))
    else:
        outcome = outcome_of(call(request_message, timeout=5))
    assert outcome.code is grpc.StatusCode.UNIMPLEMENTED
    assert outcome.reason == "READS_UNAVAILABLE"


def test_with_a_topology_of_others_health_is_that_of_the_broker(existing: Connected) -> None:
    channel, _ = existing
    assert health(channel, "provgate.storage") == "NOT_SERVING"
    assert health(channel, "provgate.broker") == health(channel, "") == health(channel) == "SERVING"


def test_health_knows_broker_and_storage(gateway: Connected) -> None:
    for service in ("", "provgate.v1.ProvenanceStorage", "provgate.broker", "provgate.storage"):
        assert health(gateway[0], service) == "SERVING"
