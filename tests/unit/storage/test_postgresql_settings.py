"""The settings of the PostgreSQL storage."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg2.extensions import parse_dsn

from provgate_runtime import ConfigurationError
from provgate_storage.postgresql import ProvenanceStoragePostgreSql
from provgate_storage.postgresql.connections import read_session, setup_session, stream_session, write_session
from provgate_storage.postgresql.settings import connection_string, parse_settings

SECRET = "hunter2"


@pytest.mark.parametrize(
    "db",
    [
        f"postgresql://me:{SECRET}@db.example:5433/provenance?sslmode=require",
        f"host=db.example port=5433 dbname=provenance user=me password={SECRET} sslmode=require",
        {
            "host": "db.example",
            "port": 5433,
            "dbname": "provenance",
            "user": "me",
            "password": SECRET,
            "sslmode": "require",
        },
    ],
)
def test_every_form_of_db_means_the_same(db: Any) -> None:
    parsed = parse_dsn(connection_string(parse_settings({"db": db})))
    assert parsed | {"host": "db.example", "port": "5433", "dbname": "provenance", "sslmode": "require"} == parsed
    assert parsed["password"] == SECRET
    assert parsed["connect_timeout"] == "5"
    assert parsed["tcp_user_timeout"] == "20000"


def test_db_overrides_the_defaults() -> None:
    db = "connect_timeout=33 application_name=mine options='-c search_path=other'"
    session = parse_dsn(write_session(parse_settings({"db": db})).dsn)
    assert session["connect_timeout"] == "33"
    assert session["application_name"] == "mine write"
    assert session["options"].startswith("-c search_path=other -c TimeZone=UTC ")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "storage_config.db: Object missing required field `db`"),
        ({"db": 7}, "storage_config.db: Expected `str | object`, got `int`"),
        ({"db": {"host": None}}, "storage_config.db[...]: Expected `int | str`, got `null`"),
        ({"db": {"hostt": "h", "password": SECRET}}, "storage_config.db.hostt: libpq has no such keyword"),
        (
            {"db": f"host=h password {SECRET}"},
            "storage_config.db: it is neither a libpq connection string nor a URI",
        ),
        (
            {"db": f"postgresql://me:{SECRET}@h/db?nonsense=1"},
            "storage_config.db: it is neither a libpq connection string nor a URI",
        ),
        (
            {"db": "", "conections": 1},
            "storage_config.conections: Object contains unknown field `conections`; did you mean `read_connections`?",
        ),
        ({"db": "", "write_connections": 0}, "storage_config.write_connections: Expected `int` >= 1"),
        ({"db": "", "connect_timeout_s": 1}, "storage_config.connect_timeout_s: Expected `int` >= 2"),
        ({"db": "", "read_timeout_s": 0}, "storage_config.read_timeout_s: Expected `float` > 0.0"),
    ],
)
def test_an_error_names_its_path_and_no_secret(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ProvenanceStoragePostgreSql(**settings)
    assert caught.value.message == message
    assert caught.value.__suppress_context__ or SECRET not in str(caught.value.__context__)


def test_no_secret_is_printed() -> None:
    settings = parse_settings({"db": {"password": SECRET}})
    for use in (setup_session, write_session, read_session, stream_session):
        assert SECRET in use(settings).dsn
        assert SECRET not in repr(use(settings))
    assert SECRET not in repr(settings)


def test_each_use_has_its_time_limits() -> None:
    settings = parse_settings(
        {"db": "", "write_timeout_s": 1, "lock_timeout_s": 0.0001, "read_timeout_s": 2, "stream_timeout_s": 3}
    )
    for use, limit in ((setup_session, "0"), (write_session, "1000")):
        options = parse_dsn(use(settings).dsn)["options"].split()
        assert {"lock_timeout=1", f"statement_timeout={limit}"} <= set(options)
    assert "-c statement_timeout=2000 " in parse_dsn(read_session(settings).dsn)["options"]
    assert "-c statement_timeout=3000 " in parse_dsn(stream_session(settings).dsn)["options"]
