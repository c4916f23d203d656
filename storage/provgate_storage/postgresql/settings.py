"""How to reach the database, and how long to wait for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import psycopg2
from msgspec import Meta
from psycopg2.extensions import make_dsn, parse_dsn

from provgate_config import ConfigurationError, Settings, convert

# Where the settings stand, as messages name it.
CONFIG_PATH: Final = "storage_config"


class PostgreSqlSettings(Settings, frozen=True):
    """The settings of `ProvenanceStoragePostgreSql`."""

    db: Annotated[
        str | dict[str, str | int],
        Meta(
            description="A libpq connection string or URI, or a mapping of libpq keywords (host, port, dbname, ...).",
            extra={"option": False},
        ),
    ]
    application_name: Annotated[
        str, Meta(description="The name by which PostgreSQL lists the connections; the kind of use is added.")
    ] = "provgate"
    write_connections: Annotated[int, Meta(ge=1, description="At most so many connections for writes.")] = 4
    read_connections: Annotated[int, Meta(ge=1, description="At most so many connections for reads by id.")] = 4
    stream_connections: Annotated[int, Meta(ge=1, description="At most so many streamed reads at once.")] = 8
    connection_wait_s: Annotated[
        float, Meta(ge=0, description="How long a write or a read by id waits for a free connection, in seconds.")
    ] = 30.0
    stream_wait_s: Annotated[
        float, Meta(ge=0, description="How long a streamed read waits for a free connection, in seconds.")
    ] = 2.0
    connect_timeout_s: Annotated[
        int, Meta(ge=2, description="How long making a connection may take, in seconds; libpq's minimum is 2.")
    ] = 5
    tcp_timeout_s: Annotated[
        int, Meta(ge=4, description="After so many seconds without an answer of its host a connection is lost.")
    ] = 20
    lock_timeout_s: Annotated[
        float, Meta(gt=0, description="How long a write waits for a lock of another one, in seconds.")
    ] = 10.0
    write_timeout_s: Annotated[
        float, Meta(gt=0, description="How long one statement of a write may run, in seconds.")
    ] = 120.0
    read_timeout_s: Annotated[
        float, Meta(gt=0, description="How long one statement of a read by id may run, in seconds.")
    ] = 30.0
    stream_timeout_s: Annotated[
        float, Meta(gt=0, description="How long a streamed read may compute its next chunk, in seconds.")
    ] = 600.0
    stream_idle_timeout_s: Annotated[
        float, Meta(gt=0, description="After so many seconds without being read the server ends a streamed read.")
    ] = 300.0
    stream_chunk_row_count: Annotated[
        int, Meta(ge=1, le=100_000, description="Rows of one chunk of a streamed read.")
    ] = 1_000

    def __repr__(self) -> str:
        # `db` may hold a password.
        return f"{type(self).__name__}(application_name={self.application_name!r}, ...)"


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
