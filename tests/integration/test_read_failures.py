"""Reads that the local storage does not serve: too long a query, and a right that is missing."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import grpc
import psycopg2
import pytest
from psycopg2.extensions import make_dsn

from provgate_client.errors import CallError
from provgate_client.storage import ProvenanceStorageGrpc
from provgate_stack.processes.programs import GatewayProgram
from provgate_stack.servers.postgresql import postgresql_storage
from provgate_storage import RelationType
from tests.support.fix_stack import MakeStack
from tests.support.gateway_calls import connected, wait_serving
from tests.support.polling import eventually

LIMIT_S = 0.5
CONTENT = b"\x01" * 20


@pytest.fixture(scope="module")
def role(module_postgres_dsn: str) -> Iterator[tuple[str, str]]:
    """A user of the database who may read, and its DSN."""
    name, password = f"reader_{secrets.token_hex(4)}", secrets.token_hex(8)
    execute(module_postgres_dsn, f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
    execute(module_postgres_dsn, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}")
    yield name, make_dsn(module_postgres_dsn, user=name, password=password)
    execute(module_postgres_dsn, f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.fixture
def gateway(make_stack: MakeStack, role: tuple[str, str]) -> GatewayProgram:
    limits = {"read_timeout_s": LIMIT_S, "stream_timeout_s": LIMIT_S}
    program = make_stack({**postgresql_storage(role[1]), **limits}).start_gateway()
    with connected(program.address) as (channel, _):
        wait_serving(channel)
    return program


def execute(dsn: str, statement: str) -> None:
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)


@contextmanager
def locked(dsn: str, table: str) -> Iterator[None]:
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield


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
def test_a_query_over_its_time_limit(gateway: GatewayProgram, module_postgres_dsn: str, streamed: bool) -> None:
    with ProvenanceStorageGrpc(url=gateway.address, retry_time_s=5) as storage:
        with locked(module_postgres_dsn, "content_in_revision"):
            started_at = time.monotonic()
            error = failure(storage, streamed)
            elapsed_s = time.monotonic() - started_at
        lines = log_lines(gateway, "storage.read")
        found = (type(error).__name__, error.status.code, error.status.reason, error.status.retry_delay_s, len(lines))
        assert found == ("QueryTimeoutError", grpc.StatusCode.DEADLINE_EXCEEDED, "QUERY_TIMEOUT", None, 1), elapsed_s
        assert "statement timeout" not in str(error)
        assert "took longer than its limit" in lines[0]
        # Once the table can be read nothing has ended that would be told.
        read(storage, streamed)
        assert len(log_lines(gateway, "storage.read")) == 1


@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "streamed"])
def test_a_right_that_is_missing(
    gateway: GatewayProgram, module_postgres_dsn: str, role: tuple[str, str], streamed: bool
) -> None:
    name, _ = role
    with ProvenanceStorageGrpc(url=gateway.address, retry_time_s=5) as storage:
        execute(module_postgres_dsn, f"REVOKE SELECT ON content_in_revision FROM {name}")
        try:
            errors = [failure(storage, streamed) for _ in range(5)]
        finally:
            execute(module_postgres_dsn, f"GRANT SELECT ON content_in_revision TO {name}")
        found = [(error.status.code, error.status.reason, error.status.retry_delay_s) for error in errors]
        assert found == [(grpc.StatusCode.FAILED_PRECONDITION, "STORAGE_MISMATCH", None)] * 5
        assert "content_in_revision" not in str(errors[0])
        (line,) = log_lines(gateway, "storage.read")
        assert "permission denied for table content_in_revision" in line

        def ended() -> bool:
            read(storage, streamed)
            return len(log_lines(gateway, "storage.read")) == 2

        eventually(ended, "the log says that reads go well again", 30)
        assert "go well again after" in log_lines(gateway, "storage.read")[1]
