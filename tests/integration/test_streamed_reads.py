"""Reads that stream: bounded in number and in time, and what they held is given back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import psycopg2
import pytest

from provgate.v1 import model_pb2
from provgate.v1 import provenance_storage_pb2 as pb2
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_stack.stack import Stack
from tests.support.gateway_calls import check_exhausted, connected, outcome_of, outcome_of_unary
from tests.support.polling import eventually

IDLE_S = 0.8

FIRST = pb2.ContentFindFirstRequest(id=b"\x01" * 20)
LARGE = pb2.RelationGetAllRequest(relation=model_pb2.RELATION_TYPE_CNT_IN_DIR)
LOCKED = pb2.RelationGetAllRequest(relation=model_pb2.RELATION_TYPE_REV_IN_ORG)
SMALL = pb2.EntityGetAllRequest(entity=model_pb2.ENTITY_TYPE_ORIGIN)


@pytest.fixture(scope="module")
def stub(workerless_stack: Stack) -> Iterator[ProvenanceStorageStub]:
    program = workerless_stack.start_gateway(
        listings=1,
        streamed_read_wait=0.3,
        streamed_read_idle=IDLE_S,
    )
    with connected(program.address) as (_, stub):
        yield stub
    assert program.terminate() == 0
    assert " ERROR " not in program.log_path.read_text(encoding="utf-8")


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
    check_exhausted(outcome_of(stub.EntityGetAll(SMALL, timeout=5)), "TOO_MANY_CALLS")
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
