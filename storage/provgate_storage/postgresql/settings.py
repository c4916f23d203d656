"""The settings of the PostgreSQL storage: how to reach the database, and how long to wait for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import psycopg2
from msgspec import Meta
from psycopg2.extensions import make_dsn, parse_dsn

from provgate_runtime import ConfigurationError, convert
from provgate_storage.settings import CONFIG_PATH, DatabaseSettings


class PostgreSqlSettings(DatabaseSettings, frozen=True, kw_only=True):
    """The settings of `ProvenanceStoragePostgreSql`. Connections add their use to the application's name."""

    db: Annotated[
        str | dict[str, str | int],
        Meta(
            description="A libpq connection string or URI, or a mapping of libpq keywords (host, port, dbname, ...).",
            extra={"option": False},
        ),
    ]
    connect_timeout_s: Annotated[
        int, Meta(ge=2, description="The time limit for making a connection, in seconds; libpq's minimum is 2.")
    ] = 5
    tcp_timeout_s: Annotated[
        int, Meta(ge=4, description="A connection is lost after this time without an answer of its host, in seconds.")
    ] = 20
    lock_timeout_s: Annotated[
        float, Meta(gt=0, description="How long a write waits for a lock of another write, in seconds.")
    ] = 10.0
    stream_idle_timeout_s: Annotated[
        float, Meta(gt=0, description="The server ends a streamed read that is not read for this time, in seconds.")
    ] = 300.0


def parse_settings(values: Mapping[str, Any]) -> PostgreSqlSettings:
    """Returns `values` as settings.

    Raises:
        ConfigurationError: as `convert` does, or libpq does not understand `db`. The text never quotes `db`.
    """
    settings = convert(values, PostgreSqlSettings, CONFIG_PATH)
    # Neither the texts nor the causes of libpq's errors are shown: they quote the string, which may hold a password.
    if isinstance(settings.db, str):
        try:
            parse_dsn(settings.db)
        except psycopg2.ProgrammingError:
            raise ConfigurationError(f"{CONFIG_PATH}.db: it is neither a libpq connection string nor a URI") from None
        return settings
    for keyword in settings.db:
        try:
            make_dsn(**{keyword: "1"})
        except psycopg2.ProgrammingError:
            raise ConfigurationError(f"{CONFIG_PATH}.db.{keyword}: libpq has no such keyword") from None
    return settings


def connection_string(settings: PostgreSqlSettings) -> str:
    """Returns `db` as a libpq connection string, with provgate's time limits where `db` sets none."""
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
