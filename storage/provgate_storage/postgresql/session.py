"""Connections, each made for one kind of use."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import psycopg2
from psycopg2.extensions import ISOLATION_LEVEL_READ_COMMITTED, ISOLATION_LEVEL_REPEATABLE_READ, connection, make_dsn
from psycopg2.extensions import parse_dsn as parse

from provgate_storage.postgresql.failures import translated_errors
from provgate_storage.postgresql.settings import PostgreSqlSettings, connection_string
from provgate_storage.postgresql.watchdog import WatchedConnection, WatchedCursor


@dataclass(frozen=True, slots=True)
class Session:
    """What the connections of one kind of use have in common.

    Attributes:
        dsn: where the database is, the parameters of the session included.
        readonly: whether transactions are read-only, of one snapshot each; else they read what is committed.
        answer_timeout_s: after so many seconds without an answer the server is given up: it ends a statement sooner.
        Infinite where no statement has a limit; TCP still finds out that the host is gone.
    """

    dsn: str = field(repr=False)
    readonly: bool
    answer_timeout_s: float


def setup_session(settings: PostgreSqlSettings) -> Session:
    """Returns the session of set-up: an index of a large table takes as long as it takes."""
    parameters = _lock_limits(settings) | {"statement_timeout": "0"}
    return Session(_dsn(settings, "set-up", parameters), readonly=False, answer_timeout_s=math.inf)


def write_session(settings: PostgreSqlSettings) -> Session:
    """Returns the session of writes."""
    parameters = _lock_limits(settings) | {"statement_timeout": _milliseconds(settings.write_timeout_s)}
    return _session(settings, "write", settings.write_timeout_s, parameters, readonly=False)


def read_session(settings: PostgreSqlSettings) -> Session:
    """Returns the session of reads by id."""
    return _reading(settings, "read", settings.read_timeout_s, settings.read_timeout_s)


def stream_session(settings: PostgreSqlSettings) -> Session:
    """Returns the session of streamed reads."""
    return _reading(settings, "stream", settings.stream_timeout_s, settings.stream_idle_timeout_s)


def connect(session: Session) -> connection:
    """Returns a new connection.

    Raises:
        StorageUnavailableError: the server cannot be reached or refuses the connection.
    """
    level = ISOLATION_LEVEL_REPEATABLE_READ if session.readonly else ISOLATION_LEVEL_READ_COMMITTED
    with translated_errors():
        made = psycopg2.connect(session.dsn, connection_factory=WatchedConnection, cursor_factory=WatchedCursor)
        try:
            made.answer_timeout_s = session.answer_timeout_s
            made.set_session(isolation_level=level, readonly=session.readonly, autocommit=False)
        except BaseException:
            made.close()
            raise
    return made


def _lock_limits(settings: PostgreSqlSettings) -> dict[str, str]:
    return {
        "lock_timeout": _milliseconds(settings.lock_timeout_s),
        # A program that is stopped inside a transaction holds its locks no longer than another one waits for them.
        "idle_in_transaction_session_timeout": _milliseconds(settings.lock_timeout_s),
    }


def _reading(settings: PostgreSqlSettings, use: str, timeout_s: float, idle_timeout_s: float) -> Session:
    parameters = {
        "statement_timeout": _milliseconds(timeout_s),
        "idle_in_transaction_session_timeout": _milliseconds(idle_timeout_s),
        # Every row of a cursor is read.
        "cursor_tuple_fraction": "1",
        # Every join starts at one content and follows indexes. After a first load there are no statistics yet, and the
        # planner would rather hash a whole table.
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
    }
    return _session(settings, use, timeout_s, parameters, readonly=True)


def _session(
    settings: PostgreSqlSettings, use: str, timeout_s: float, parameters: dict[str, str], *, readonly: bool
) -> Session:
    return Session(_dsn(settings, use, parameters), readonly, timeout_s + settings.tcp_timeout_s)


def _dsn(settings: PostgreSqlSettings, use: str, parameters: dict[str, str]) -> str:
    base = connection_string(settings)
    given = parse(base)
    name = given.get("application_name") or settings.application_name
    every = {"TimeZone": "UTC", "jit": "off", "client_min_messages": "warning", **parameters}
    options = " ".join([given.get("options", ""), *(f"-c {key}={value}" for key, value in every.items())])
    return make_dsn(base, application_name=f"{name} {use}", options=options.strip())


def _milliseconds(duration_s: float) -> str:
    # 0 would mean no limit.
    return str(max(1, round(duration_s * 1000)))
