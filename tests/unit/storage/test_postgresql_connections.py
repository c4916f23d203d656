"""The pool does not lose places, whatever its connections raise; the watchdog reports blocks that take too long."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import cast

import psycopg2
import pytest
from psycopg2.extensions import TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_INTRANS, connection

from provgate_storage.errors import StorageBusyError, StorageUnavailableError
from provgate_storage.postgresql.connections import Watchdog, connect, read_session
from provgate_storage.postgresql.pool import ConnectionPool
from provgate_storage.postgresql.settings import PostgreSqlSettings


class FakeConnection:
    """A connection in a transaction that fails as a test says."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.closed = False
        self.info = SimpleNamespace(transaction_status=TRANSACTION_STATUS_INTRANS)
        self._failure = failure

    def rollback(self) -> None:
        if self._failure is not None:
            raise self._failure
        self.info.transaction_status = TRANSACTION_STATUS_IDLE

    def set_session(self, **_: object) -> None:
        self.rollback()

    def close(self) -> None:
        self.closed = True


def pool_of(made: FakeConnection) -> ConnectionPool:
    return ConnectionPool(lambda: cast("connection", made), size=1, wait_s=0)


def error_of(sqlstate: str) -> psycopg2.Error:
    class Failure(psycopg2.Error):
        pgcode = sqlstate

    return Failure("failure")


@pytest.mark.parametrize("sqlstate", ["42501", "22000", "40001", "57P01"])
def test_a_connection_that_cannot_roll_back_is_dropped_and_its_place_is_free(sqlstate: str) -> None:
    made = FakeConnection(error_of(sqlstate))
    pool = pool_of(made)
    pool.release(pool.acquire())
    assert made.closed
    pool.acquire()


def test_an_unforeseen_error_leaves_the_place_free() -> None:
    pool = pool_of(FakeConnection(ZeroDivisionError()))
    acquired = pool.acquire()
    with pytest.raises(ZeroDivisionError):
        pool.release(acquired)
    pool.acquire()


def test_a_connection_in_use_keeps_its_place() -> None:
    pool = pool_of(FakeConnection())
    pool.acquire()
    with pytest.raises(StorageBusyError, match="no connection became free within 0 s; the limit is 1"):
        pool.acquire()


def test_a_connection_that_cannot_be_set_up_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = FakeConnection(error_of("08006"))
    monkeypatch.setattr(psycopg2, "connect", lambda *_, **__: made)
    with pytest.raises(StorageUnavailableError):
        connect(read_session(PostgreSqlSettings(db="")))
    assert made.closed


def test_the_watchdog_reports_only_blocks_that_take_too_long() -> None:
    watchdog, early, late = Watchdog(), threading.Event(), threading.Event()
    with watchdog.watch(0.05, early.set):
        pass
    with watchdog.watch(0.2, late.set):
        assert late.wait(10)
    assert not early.is_set()


def test_the_watchdog_keeps_a_sooner_deadline_while_it_waits_for_a_later_one() -> None:
    watchdog, sooner, later = Watchdog(), threading.Event(), threading.Event()
    with watchdog.watch(600, later.set), watchdog.watch(0.05, sooner.set):
        assert sooner.wait(10)
    assert not later.is_set()
