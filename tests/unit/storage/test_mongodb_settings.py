"""The settings of the MongoDB storage."""

from __future__ import annotations

from typing import Any

import pytest
from pymongo import MongoClient

from provgate_runtime import ConfigurationError
from provgate_storage.mongodb import ProvenanceStorageMongoDb
from provgate_storage.mongodb.settings import client_options, database_name, parse_settings

SECRET = "hunter2"


def client_of(db: Any) -> MongoClient[dict[str, Any]]:
    return MongoClient(**client_options(parse_settings({"db": db}), 7.0), connect=False)


@pytest.mark.parametrize(
    "db",
    [
        f"mongodb://me:{SECRET}@db.example:27018/index?tls=true",
        {"host": "db.example", "port": 27018, "dbname": "index", "user": "me", "password": SECRET, "tls": True},
    ],
)
def test_every_form_of_db_means_the_same(db: Any) -> None:
    assert database_name(parse_settings({"db": db})) == "index"
    with client_of(db) as client:
        assert client._seeds == {("db.example", 27018)}
        credentials = client.options.pool_options._credentials
        assert credentials is not None
        assert (credentials.username, credentials.password) == ("me", SECRET)
        assert client.options.pool_options._ssl_context is not None


def test_writes_wait_for_the_journals_of_a_majority_and_are_tried_again() -> None:
    with client_of("mongodb://h") as client:
        assert client.write_concern.document == {"w": "majority", "j": True}
        assert client.read_concern.level == "majority"
        assert client.options.retry_writes
        assert client.options.pool_options.socket_timeout == 7.0


def test_what_db_sets_goes_before_our_own() -> None:
    with client_of("mongodb://h/?w=1&journal=false&appName=mine&socketTimeoutMS=1000") as client:
        assert client.write_concern.document == {"w": 1, "j": False}
        assert client.options.pool_options.appname == "mine"
        assert client.options.pool_options.socket_timeout == 1.0


def test_names_of_options_are_of_any_case() -> None:
    with client_of({"host": "h", "W": 1, "Journal": False, "appName": "mine", "socketTimeoutMS": 1000}) as client:
        assert client.write_concern.document == {"w": 1, "j": False}
        assert client.options.pool_options.appname == "mine"
        assert client.options.pool_options.socket_timeout == 1.0


def test_the_database_has_a_name_where_none_is_given() -> None:
    assert database_name(parse_settings({"db": "mongodb://h"})) == "provenance"
    assert database_name(parse_settings({"db": {"host": "h"}})) == "provenance"


NEITHER = (
    "storage_config.db: it is neither a MongoDB URI nor a mapping of host, port, dbname, user, password, URI options"
)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "storage_config.db: Object missing required field `db`"),
        ({"db": f"postgresql://me:{SECRET}@h/db"}, NEITHER),
        ({"db": f"mongodb://me:{SECRET}@h:port/db"}, NEITHER),
        ({"db": f"mongodb://me:{SECRET}@h/db?nonsense=1"}, NEITHER),
        ({"db": {"host": "h", "hostt": "h", "password": SECRET}}, NEITHER),
        ({"db": {"host": "h", "port": "27017"}}, NEITHER),
        (
            {"db": "mongodb://h/db?w=0"},
            "storage_config.db: with w=0 the server acknowledges no write, so that none could be acked",
        ),
        (
            {"db": "mongodb://h", "conections": 1},
            "storage_config.conections: Object contains unknown field `conections`; did you mean `read_connections`?",
        ),
        ({"db": "mongodb://h", "connect_timeout_s": 0}, "storage_config.connect_timeout_s: Expected `float` > 0.0"),
    ],
)
def test_what_is_wrong_is_said_with_its_path_and_without_secrets(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ProvenanceStorageMongoDb(**settings)
    assert caught.value.message == message
    assert caught.value.__suppress_context__ or SECRET not in str(caught.value.__context__)


def test_no_secret_is_printed() -> None:
    assert SECRET not in repr(parse_settings({"db": {"host": "h", "user": "me", "password": SECRET}}))
