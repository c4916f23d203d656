"""Reads of the local storage: failures, and streamed reads that are bounded in number and in time."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import grpc
import psycopg2
import pytest
from psycopg2.extensions import make_dsn

from provgate.v1 import model_pb2
from provgate.v1 import provenance_storage_pb2 as pb2
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_client.errors import CallError
from provgate_client.storage import ProvenanceStorageGrpc
from provgate_stack.processes.programs import GatewayProgram
from provgate_stack.servers.postgresql import postgresql_storage
from provgate_stack.stack import Stack
from provgate_storage import RelationType
from tests.support.fix_stack import MakeStack, add_large_relation
from tests.support.gateway_calls import check_exhausted, connected, outcome_of, outcome_of_unary
from tests.support.polling import eventually

LIMIT_S = 0.5
IDLE_S = 2.0
CONTENT = b"\x01" * 20

FIRST = pb2.ContentFindFirstRequest(id=CONTENT)
LARGE = pb2.RelationGetAllRequest(relation=model_pb2.RELATION_TYPE_CNT_IN_DIR)
LOCKED = pb2.RelationGetAllRequest(relation=model_pb2.RELATION_TYPE_REV_IN_ORG)
SMALL = pb2.EntityGetAllRequest(entity=model_pb2.ENTITY_TYPE_ORIGIN)


def execute(dsn: str, statement: str) -> None:
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)


@contextmanager
def locked(dsn: str, table: str) -> Iterator[None]:
    """Keeps a table from being read."""
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield


@pytest.fixture(scope="module")
def role(module_postgres_dsn: str, workerless_stack: Stack) -> Iterator[tuple[str, str]]:
    """A user of the database who may read, and its DSN."""
    name, password = f"reader_{secrets.token_hex(4)}", secrets.token_hex(8)
    execute(module_postgres_dsn, f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
    execute(module_postgres_dsn, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}")
    yield name, make_dsn(module_postgres_dsn, user=name, password=password)
    execute(module_postgres_dsn, f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.fixture
def limited(make_stack: MakeStack, role: tuple[str, str]) -> GatewayProgram:
    """A gateway whose queries are limited in time."""
    limits = {"read_timeout_s": LIMIT_S, "stream_timeout_s": LIMIT_S}
    program = make_stack({**postgresql_storage(role[1]), **limits}).start_gateway()
    with connected(program.address):
        return program


def read(storage: ProvenanceStorageGrpc, streamed: bool) -> None:
    """Reads `content_in_revision`."""
    if streamed:
        storage.relation_get_all(RelationType.CNT_EARLY_IN_REV)
    else:
        storage.content_find_first(CONTENT)


def failure(storage: ProvenanceStorageGrpc, streamed: bool) -> CallError:
    with pytest.raises(CallError) as raised:
        read(storage, streamed)
    return raised.value


def log_lines(program: GatewayProgram, word: str) -> list[str]:
    return [line for line in program.log_path.read_text("utf-8").splitlines() if word in line]


@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "streamed"])
def test_a_query_over_its_time_limit(limited: GatewayProgram, module_postgres_dsn: str, streamed: bool) -> None:
    with ProvenanceStorageGrpc(url=limited.address, retry_time_s=5) as storage:
        with locked(module_postgres_dsn, "content_in_revision"):
            error = failure(storage, streamed)
        lines = log_lines(limited, "storage.read")
        found = (type(error).__name__, error.status.code, error.status.reason, error.status.retry_delay_s, len(lines))
        # One line: the adapter does not repeat it.
        assert found == ("QueryTimeoutError", grpc.StatusCode.DEADLINE_EXCEEDED, "QUERY_TIMEOUT", None, 1)
        assert "statement timeout" not in str(error)
        assert "took longer than its limit" in lines[0]
        # Once the table can be read nothing has ended that would be told.
        read(storage, streamed)
        assert len(log_lines(limited, "storage.read")) == 1


def test_a_right_that_is_missing(limited: GatewayProgram, module_postgres_dsn: str, role: tuple[str, str]) -> None:
    name, _ = role
    with ProvenanceStorageGrpc(url=limited.address, retry_time_s=5) as storage:
        execute(module_postgres_dsn, f"REVOKE SELECT ON content_in_revision FROM {name}")
        try:
            errors = [failure(storage, streamed) for streamed in (False, True, False, True)]
        finally:
            execute(module_postgres_dsn, f"GRANT SELECT ON content_in_revision TO {name}")
        found = [(error.status.code, error.status.reason, error.status.retry_delay_s) for error in errors]
        assert found == [(grpc.StatusCode.FAILED_PRECONDITION, "STORAGE_MISMATCH", None)] * 4
        assert "content_in_revision" not in str(errors[0])
        # One line each, of unary reads and of streamed ones.
        lines = log_lines(limited, "storage.read")
        assert ["permission denied for table content_in_revision" in line for line in lines] == [True, True]

        def ended() -> bool:
            read(storage, streamed=False)
            read(storage, streamed=True)
            return len(log_lines(limited, "storage.read")) == 4

        eventually(ended, "the log says that reads go well again")
        assert all("go well again after" in line for line in log_lines(limited, "storage.read")[2:])


@pytest.fixture(scope="module")
def stub(workerless_stack: Stack, module_postgres_dsn: str) -> Iterator[ProvenanceStorageStub]:
    """A gateway that lets one streamed read run, before a storage that holds a relation of 32 MB."""
    add_large_relation(module_postgres_dsn)
    program = workerless_stack.start_gateway(listings=1, streamed_read_wait=0.3, streamed_read_idle=IDLE_S)
    with connected(program.address) as (_, stub):
        yield stub
    assert program.terminate() == 0
    assert " ERROR " not in program.log_path.read_text(encoding="utf-8")


@pytest.fixture
def database(module_postgres_dsn: str) -> Iterator[Any]:
    with closing(psycopg2.connect(module_postgres_dsn)) as connection:
        connection.autocommit = True
        yield connection


def streams(database: Any) -> int:
    """Returns how many transactions of streamed reads there are."""
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle'"
            " AND application_name LIKE '%stream'"
        )
        return int(cursor.fetchone()[0])


def wait_for_streams(database: Any, count: int) -> None:
    eventually(lambda: streams(database) == count, f"{count} streamed reads hold a connection")


def test_a_large_answer_comes_in_messages_that_every_client_takes(stub: ProvenanceStorageStub, database: Any) -> None:
    responses = outcome_of(stub.RelationGetAll(LARGE, timeout=60)).responses
    assert sum(len(response.relations) for response in responses) == 8000
    assert max(response.ByteSize() for response in responses) < 4 * 2**20
    wait_for_streams(database, 0)


def test_a_streamed_read_that_nobody_takes_is_ended(stub: ProvenanceStorageStub, database: Any) -> None:
    call = stub.RelationGetAll(LARGE, timeout=60)
    next(call)
    assert streams(database) == 1
    # While it runs, one more has no turn, and a unary read does not wait.
    check_exhausted(outcome_of(stub.EntityGetAll(SMALL, timeout=20)), "TOO_MANY_CALLS")
    assert outcome_of_unary(lambda: stub.ContentFindFirst(FIRST, timeout=20)).ok
    wait_for_streams(database, 0)
    assert outcome_of(stub.EntityGetAll(SMALL, timeout=20)).ok
    outcome = outcome_of(call)
    assert (outcome.code, outcome.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "READ_TIMEOUT")


def test_a_client_that_takes_its_time_is_not_ended(stub: ProvenanceStorageStub) -> None:
    call = stub.RelationGetAll(LARGE, timeout=60)
    started_at = time.monotonic()
    while time.monotonic() - started_at < 1.25 * IDLE_S:
        next(call)
        time.sleep(IDLE_S / 8)
    assert outcome_of(call).ok


def test_a_streamed_read_that_is_closed_or_out_of_time_ends_its_query(
    stub: ProvenanceStorageStub, database: Any, module_postgres_dsn: str
) -> None:
    with locked(module_postgres_dsn, "revision_in_origin"):
        call = stub.RelationGetAll(LOCKED, timeout=60)
        wait_for_streams(database, 1)
        # Unary reads do not wait for it.
        for _ in range(20):
            assert outcome_of_unary(lambda: stub.ContentFindFirst(FIRST, timeout=20)).ok
        call.cancel()
        wait_for_streams(database, 0)
        assert outcome_of(stub.RelationGetAll(LOCKED, timeout=0.3)).code is grpc.StatusCode.DEADLINE_EXCEEDED
        wait_for_streams(database, 0)
    # Between two chunks of one, too.
    for _ in range(10):
        call = stub.RelationGetAll(LARGE, timeout=60)
        next(call)
        call.cancel()
    wait_for_streams(database, 0)
    assert outcome_of(stub.EntityGetAll(SMALL, timeout=20)).ok
