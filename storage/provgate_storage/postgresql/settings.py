"""How to reach the database, and how long to wait for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import psycopg2
from msgspec import Meta
from psycopg2.extensions import make_dsn, parse_dsn

from provgate_runtime import ConfigurationError, convert
from provgate_storage.settings import CONFIG_PATH, DatabaseSettings


class PostgreSqlSettings(DatabaseSettings, frozen=True, kw_only=True):
    """The settings of `ProvenanceStoragePostgreSql`. The kind of use is added to the application's name."""

    db: Annotated[
        str | dict[str, str | int],
        Meta(
            description="A libpq connection string or URI, or a mapping of libpq keywords (host, port, dbname, ...).",
            extra={"option": False},
        ),
    ]
    connect_timeout_s: Annotated[
        int, Meta(ge=2, description="How long making a connection may take, in seconds; libpq's minimum is 2.")
    ] = 5
    tcp_timeout_s: Annotated[
        int, Meta(ge=4, description="After so many seconds without an answer of its host a connection is lost.")
    ] = 20
    lock_timeout_s: Annotated[
        float, Meta(gt=0, description="How long a write waits for a lock of another one, in seconds.")
    ] = 10.0
    stream_idle_timeout_s: Annotated[
        float, Meta(gt=0, description="After so many seconds without being read the server ends a streamed read.")
    ] = 300.0


def parse_settings(values: Mapping[str, Any], path: str = CONFIG_PATH) -> PostgreSqlSettings:
    """Returns `values` as settings.

    Raises:
        ConfigurationError: as `convert` does, or `db` is not what libpq understands. The text never quotes `db`.
    """
    settings = convert(values, PostgreSqlSettings, path)
    if isinstance(settings.db, str):
        _check_connection_string(settings.db, f"{path}.db")
    else:
        _check_keywords(settings.db, f"{path}.db")
    return settings


def connection_string(settings: PostgreSqlSettings) -> str:
    """Returns `db` as a libpq connection string, with the time limits of its connections where `db` sets none."""
    own = {
        "client_encoding": "utf8",
        "connect_timeout": settings.connect_timeout_s,
        "tcp_user_timeout": settings.tcp_timeout_s * 1000,
        "keepalives_idle": settings.tcp_timeout_s // 4,
        "keepalives_interval": settings.tcp_timeout_s // 4,
        "keepalives_count": 3,
    }
    given = parse_dsn(settings.db) if isinstance(settings.db, str) else settings.db
    dsn: str = make_dsn(**{**own, **given})
    return dsn


def _check_connection_string(db: str, path: str) -> None:
    try:
        parse_dsn(db)
    except psycopg2.ProgrammingError:
        # Neither the text of the error nor its cause is shown: libpq quotes the string, which may hold a password.
        raise ConfigurationError(f"{path}: it is neither a libpq connection string nor a URI") from None


def _check_keywords(db: Mapping[str, str | int], path: str) -> None:
    for keyword in db:
        try:
            make_dsn(**{keyword: "1"})
        except psycopg2.ProgrammingError:
            raise ConfigurationError(f"{path}.{keyword}: libpq has no such keyword") from None
