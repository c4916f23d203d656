"""A pool does not lose places, whatever its connections raise."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import psycopg2
import pytest
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_INTRANS, connection

from provgate_storage.errors import StorageBusyError, StorageUnavailableError
from provgate_storage.postgresql.connections import connect, read_session
from provgate_storage.postgresql.pool import ConnectionPool
from provgate_storage.postgresql.settings import PostgreSqlSettings


class FakeConnection:
    """A connection in a transaction that fails when it is told to."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.closed = False
        self.info = SimpleNamespace(transaction_status=TRANSACTION_STATUS_INTRANS)
        self._failure = failure

    def rollback(self) -> None:
        if self._failure is not None:
            raise self._failure
        self.info.transaction_status = TRANSACTION_STATUS_IDLE

    def set_session(self, **_: object) -> None:
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        self.closed = True


def pool_of(made: FakeConnection) -> ConnectionPool:
    return ConnectionPool(lambda: cast("connection", made), size=1, wait_s=0)


def error_of(sqlstate: str) -> psycopg2.Error:
    class Failure(psycopg2.Error):
        pgcode = sqlstate

    return Failure("failure")


@pytest.mark.parametrize("failure", [error_of("42501"), error_of("22000"), error_of("40001"), error_of("57P01")])
def test_a_connection_that_cannot_roll_back_is_dropped_and_its_place_is_free(failure: psycopg2.Error) -> None:
    made = FakeConnection(failure)
    pool = pool_of(made)
    pool.give_back(pool.take())
    assert made.closed
    pool.take()


def test_an_error_that_nobody_foresaw_leaves_the_place_free() -> None:
    pool = pool_of(FakeConnection(ZeroDivisionError()))
    taken = pool.take()
    with pytest.raises(ZeroDivisionError):
        pool.give_back(taken)
    pool.take()


def test_a_connection_in_use_keeps_its_place() -> None:
    pool = pool_of(FakeConnection())
    pool.take()
    with pytest.raises(StorageBusyError):
        pool.take()


def test_a_connection_that_cannot_be_set_up_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = FakeConnection(error_of("08006"))
    monkeypatch.setattr(psycopg2, "connect", lambda *_, **__: made)
    with pytest.raises(StorageUnavailableError):
        connect(read_session(PostgreSqlSettings(db="")))
    assert made.closed
