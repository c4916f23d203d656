"""What the gateway holds at most, and that it gives all of it back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import psycopg2
import pytest

from provgate.v1 import model_pb2
from provgate.v1 import provenance_storage_pb2 as pb2
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_stack.stack import Stack
from tests.integration.gateway_calls import (
    OpenWrite,
    Outcome,
    connected,
    contents,
    eventually,
    outcome_of,
    outcome_of_unary,
    write,
)
from tests.integration.scripted_workers import ScriptedWorkers, silent

MAX_CALLS = 3
MAX_UNACKED = 100
MAX_UNACKED_PER_CALL = 60
IDLE_S = 0.8
SHORT_S = 0.7

FIRST = pb2.ContentFindFirstRequest(id=b"\x01" * 20)
LARGE = pb2.RelationGetAllRequest(relation=model_pb2.RELATION_TYPE_CNT_IN_DIR)
LOCKED = pb2.RelationGetAllRequest(relation=model_pb2.RELATION_TYPE_REV_IN_ORG)
SMALL = pb2.EntityGetAllRequest(entity=model_pb2.ENTITY_TYPE_ORIGIN)


@pytest.fixture(scope="module")
def gateway(workerless_stack: Stack, module_postgres_dsn: str) -> Iterator[ProvenanceStorageStub]:
    program = workerless_stack.start_gateway(
        batch_size=10,
        max_calls=MAX_CALLS,
        max_unacked_entries=MAX_UNACKED,
        max_unacked_entries_per_call=MAX_UNACKED_PER_CALL,
        streamed_reads=1,
        streamed_read_wait=0.3,
        streamed_read_idle=IDLE_S,
    )
    with connected(program.address) as (_, stub):
        yield stub
    assert program.terminate() == 0
    assert " ERROR " not in program.log_path.read_text(encoding="utf-8")


@pytest.fixture
def stub(gateway: ProvenanceStorageStub, scripted_workers: ScriptedWorkers) -> ProvenanceStorageStub:
    # The calls of the test before may have been cancelled only just now.
    eventually(lambda: outcome_of_unary(lambda: gateway.ContentFindFirst(FIRST, timeout=5)).ok, "a call is taken")
    return gateway


def test_one_call_too_many_is_turned_away(stub: ProvenanceStorageStub) -> None:
    calls = [OpenWrite(stub) for _ in range(MAX_CALLS)]
    for call in calls:
        call.send(contents(1))
        call.wait_for(lambda progress: progress.acked_count == 1)
    outcome = write(stub.ContentAdd, [contents(1)])
    _check_turned_away(outcome, "TOO_MANY_CALLS")
    assert outcome.counts == (0, 0, 0)
    _check_turned_away(outcome_of_unary(lambda: stub.ContentFindFirst(FIRST, timeout=5)), "TOO_MANY_CALLS")
    # The calls in flight are not disturbed, and what they leave is for others.
    assert all(call.end().ok for call in calls)
    assert write(stub.ContentAdd, [contents(1)]).ok


def _check_turned_away(outcome: Outcome, reason: str) -> None:
    assert outcome.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert outcome.reason == reason
    assert outcome.details["RetryInfo"].retry_delay.ToSeconds() >= 1


def test_cancelled_calls_leave_nothing_behind(stub: ProvenanceStorageStub, scripted_workers: ScriptedWorkers) -> None:
    scripted_workers.script = silent
    for _ in range(20):
        call = OpenWrite(stub)
        call.send(contents(MAX_UNACKED_PER_CALL))
        call.send(contents(MAX_UNACKED_PER_CALL))
        call.wait_for(lambda progress: progress.received_count == 2 * MAX_UNACKED_PER_CALL)
        call.cancel()
    scripted_workers.reset()
    # Each of the two needs most of the total, together all of it: neither entries nor a slot is lost.
    with ThreadPoolExecutor(2) as threads:
        messages = [[contents(MAX_UNACKED // 2, start=1000 * number)] for number in range(2)]
        outcomes = list(threads.map(lambda message: write(stub.ContentAdd, message, 5), messages))
    assert [outcome.counts for outcome in outcomes] == [(50, 50, 50)] * 2
    call = OpenWrite(stub)
    scripted_workers.script = silent
    call.send(contents(MAX_UNACKED))
    assert call.wait_for(lambda progress: progress.published_count == MAX_UNACKED)
    call.cancel()


def test_calls_that_wait_outlive_the_cancelled_one_before_them(
    stub: ProvenanceStorageStub, scripted_workers: ScriptedWorkers
) -> None:
    scripted_workers.script = silent
    gone = OpenWrite(stub)
    for _ in range(2):
        gone.send(contents(MAX_UNACKED_PER_CALL))
    gone.wait_for(lambda progress: progress.received_count == 2 * MAX_UNACKED_PER_CALL)
    scripted_workers.reset()
    waiting = OpenWrite(stub, timeout_s=5)
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
    _check_turned_away(outcome, "FLOW_CONTROL")
    assert outcome.counts == (60, 0, 0)
    holder.cancel()


def test_a_message_larger_than_every_bound_is_admitted_alone(stub: ProvenanceStorageStub) -> None:
    assert write(stub.ContentAdd, [contents(500), contents(500, start=500)]).counts == (1000, 1000, 1000)


def test_many_calls_share_a_narrow_bound(stub: ProvenanceStorageStub) -> None:
    start = threading.Barrier(MAX_CALLS)

    def call(number: int) -> tuple[int, int, int]:
        start.wait(10)
        return write(stub.ContentAdd, [contents(40, start=1000 * number + 40 * part) for part in range(5)]).counts

    with ThreadPoolExecutor(MAX_CALLS) as threads:
        assert list(threads.map(call, range(MAX_CALLS))) == [(200, 200, 200)] * MAX_CALLS


def test_a_client_that_does_not_read_is_acked_all_the_same(
    stub: ProvenanceStorageStub, scripted_workers: ScriptedWorkers
) -> None:
    call = OpenWrite(stub)
    for part in range(20):
        call.send(contents(40, start=40 * part))
    eventually(lambda: sum(len(r.entries) for r in list(scripted_workers.requests)) == 800, "all is published")
    assert call.end().counts == (800, 800, 800)


@pytest.fixture(scope="module")
def database(module_postgres_dsn: str, workerless_stack: Stack) -> Iterator[Any]:
    """A connection to the storage's database, which holds one relation of 32 MB."""
    connection = psycopg2.connect(module_postgres_dsn)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO content_in_directory SELECT substr(sha256(n::text::bytea), 1, 20), "
            "substr(sha256(n::text::bytea), 1, 20), (repeat('x', 4000) || n)::bytea FROM generate_series(1, 8000) n"
        )
    yield connection
    connection.close()


def _streams(database: Any) -> int:
    """Returns how many transactions of streamed reads there are."""
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle'"
            " AND application_name LIKE '%stream'"
        )
        return int(cursor.fetchone()[0])


@contextmanager
def _locked(dsn: str) -> Iterator[None]:
    """Keeps `LOCKED` from being read."""
    connection = psycopg2.connect(dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE revision_in_origin IN ACCESS EXCLUSIVE MODE")
        yield
    finally:
        connection.close()


def test_a_large_answer_comes_in_messages_that_every_client_takes(stub: ProvenanceStorageStub, database: Any) -> None:
    responses = outcome_of(stub.RelationGetAll(LARGE, timeout=20)).responses
    assert sum(len(response.relations) for response in responses) == 8000
    assert max(response.ByteSize() for response in responses) < 4 * 2**20
    eventually(lambda: _streams(database) == 0, "the connection is given back")


def test_a_streamed_read_that_nobody_takes_is_ended(stub: ProvenanceStorageStub, database: Any) -> None:
    call = stub.RelationGetAll(LARGE, timeout=20)
    next(call)
    assert _streams(database) == 1
    # While it runs, one more has no turn, and a unary read does not wait.
    _check_turned_away(outcome_of(stub.EntityGetAll(SMALL, timeout=5)), "TOO_MANY_CALLS")
    unary = outcome_of_unary(lambda: stub.ContentFindFirst(FIRST, timeout=5))
    assert unary.ok
    assert unary.elapsed_s < 0.3
    eventually(lambda: _streams(database) == 0, "the connection is given back", timeout_s=IDLE_S + 2)
    assert outcome_of(stub.EntityGetAll(SMALL, timeout=5)).ok
    outcome = outcome_of(call)
    assert outcome.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert outcome.reason == "READ_TIMEOUT"


def test_a_client_that_takes_its_time_is_not_ended(stub: ProvenanceStorageStub, database: Any) -> None:
    call = stub.RelationGetAll(LARGE, timeout=20)
    started_at = time.monotonic()
    for _ in range(12):
        next(call)
        time.sleep(IDLE_S / 8)
    assert time.monotonic() - started_at > IDLE_S
    assert outcome_of(call).ok


def test_closing_a_streamed_read_ends_its_query(
    stub: ProvenanceStorageStub, database: Any, module_postgres_dsn: str
) -> None:
    with _locked(module_postgres_dsn):
        call = stub.RelationGetAll(LOCKED, timeout=20)
        eventually(lambda: _streams(database) == 1, "the query runs")
        call.cancel()
        eventually(lambda: _streams(database) == 0, "the query is ended", timeout_s=3)
    assert outcome_of(stub.EntityGetAll(SMALL, timeout=5)).ok


def test_the_deadline_of_a_streamed_read_ends_its_query(
    stub: ProvenanceStorageStub, database: Any, module_postgres_dsn: str
) -> None:
    with _locked(module_postgres_dsn):
        assert outcome_of(stub.RelationGetAll(LOCKED, timeout=0.3)).code is grpc.StatusCode.DEADLINE_EXCEEDED
        eventually(lambda: _streams(database) == 0, "the query is ended", timeout_s=3)


def test_closing_a_streamed_read_between_two_chunks_gives_its_connection_back(
    stub: ProvenanceStorageStub, database: Any
) -> None:
    for _ in range(10):
        call = stub.RelationGetAll(LARGE, timeout=20)
        next(call)
        call.cancel()
    eventually(lambda: _streams(database) == 0, "the connection is given back", timeout_s=3)
    assert outcome_of(stub.EntityGetAll(SMALL, timeout=5)).ok


def test_unary_reads_do_not_wait_for_streamed_ones(
    stub: ProvenanceStorageStub, database: Any, module_postgres_dsn: str
) -> None:
    with _locked(module_postgres_dsn):
        call = stub.RelationGetAll(LOCKED, timeout=20)
        eventually(lambda: _streams(database) == 1, "the query runs")
        for _ in range(20):
            assert outcome_of_unary(lambda: stub.ContentFindFirst(FIRST, timeout=2)).ok
    assert outcome_of(call).ok
