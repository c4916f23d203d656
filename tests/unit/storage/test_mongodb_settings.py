"""The settings of the MongoDB storage."""

from __future__ import annotations

import socket
from typing import Any, NoReturn

import dns.resolver
import pytest
from pymongo import MongoClient

from provgate_runtime import ConfigurationError
from provgate_storage.mongodb import ProvenanceStorageMongoDb
from provgate_storage.mongodb.settings import client_options, database_name, parse_settings

SECRET = "hunter2"
UNACKNOWLEDGED = "storage_config.db: with w=0 the server acknowledges no write, so that none could be acked"
NEITHER = (
    "storage_config.db: it is neither a MongoDB URI nor a mapping of host, port, dbname, user, password, URI options"
)


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


@pytest.mark.parametrize(
    "db",
    [
        "mongodb://h/?w=1&journal=false&appName=mine&socketTimeoutMS=1000",
        {"host": "h", "W": 1, "Journal": False, "appName": "mine", "socketTimeoutMS": 1000},
    ],
)
def test_db_overrides_the_defaults_in_any_case(db: Any) -> None:
    with client_of(db) as client:
        assert client.write_concern.document == {"w": 1, "j": False}
        assert client.options.pool_options.appname == "mine"
        assert client.options.pool_options.socket_timeout == 1.0


@pytest.mark.parametrize("db", ["mongodb://h", {"host": "h"}])
def test_the_database_has_a_default_name(db: Any) -> None:
    assert database_name(parse_settings({"db": db})) == "provenance"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "storage_config.db: Object missing required field `db`"),
        ({"db": f"postgresql://me:{SECRET}@h/db"}, NEITHER),
        ({"db": f"mongodb://me:{SECRET}@h:port/db"}, NEITHER),
        ({"db": f"mongodb://me:{SECRET}@h/db?nonsense=1"}, NEITHER),
        ({"db": {"host": "h", "hostt": "h", "password": SECRET}}, NEITHER),
        ({"db": {"host": "h", "port": "27017"}}, NEITHER),
        *(
            ({"db": {"host": "h", "dbname": name, "user": "me", "password": SECRET}}, NEITHER)
            for name in ("", "a.b", "a b", "a$b")
        ),
        ({"db": "mongodb://h/?w=0"}, UNACKNOWLEDGED),
        ({"db": "mongodb://h/?W=0&journal=false"}, UNACKNOWLEDGED),
        ({"db": {"host": "h", "w": 0}}, UNACKNOWLEDGED),
        ({"db": {"host": "h", "w": 0, "journal": False}}, UNACKNOWLEDGED),
        ({"db": {"host": "h", "w": "0", "journal": False}}, UNACKNOWLEDGED),
        ({"db": {"host": "h", "W": 0, "journal": False}}, UNACKNOWLEDGED),
        (
            {"db": "mongodb://h", "conections": 1},
            "storage_config.conections: Object contains unknown field `conections`; did you mean `read_connections`?",
        ),
        ({"db": "mongodb://h", "connect_timeout_s": 0}, "storage_config.connect_timeout_s: Expected `float` > 0.0"),
    ],
)
def test_an_error_names_its_path_and_no_secret(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ProvenanceStorageMongoDb(**settings)
    assert caught.value.message == message
    assert caught.value.__suppress_context__ or SECRET not in str(caught.value.__context__)


def test_no_secret_is_printed() -> None:
    assert SECRET not in repr(parse_settings({"db": {"host": "h", "user": "me", "password": SECRET}}))


def test_an_srv_uri_is_parsed_without_a_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("a name server was asked")

    for owner, name in [(dns.resolver, "resolve"), (dns.resolver.Resolver, "resolve"), (socket, "getaddrinfo")]:
        monkeypatch.setattr(owner, name, ask)
    settings = parse_settings({"db": f"mongodb+srv://me:{SECRET}@db.example/index?w=2&authSource=admin"})
    assert database_name(settings) == "index"
    assert "w" not in client_options(settings, 1)
    assert client_options(settings, 1)["journal"] is True
    ProvenanceStorageMongoDb(db=settings.db)
