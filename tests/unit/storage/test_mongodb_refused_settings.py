"""Settings of the MongoDB storage that would lose writes, or fail later than they should."""

from __future__ import annotations

import socket
from typing import Any, NoReturn

import dns.resolver
import pytest

from provgate_runtime import ConfigurationError
from provgate_storage.mongodb import ProvenanceStorageMongoDb
from provgate_storage.mongodb.settings import client_options, database_name, parse_settings

SECRET = "hunter2"
UNACKNOWLEDGED = "storage_config.db: with w=0 the server acknowledges no write, so that none could be acked"
NEITHER = (
    "storage_config.db: it is neither a MongoDB URI nor a mapping of host, port, dbname, user, password, URI options"
)


@pytest.mark.parametrize(
    "db",
    [
        "mongodb://h/?w=0",
        "mongodb://h/?W=0&journal=false",
        {"host": "h", "w": 0},
        {"host": "h", "w": 0, "journal": False},
        {"host": "h", "w": "0", "journal": False},
        {"host": "h", "W": 0, "journal": False},
    ],
)
def test_writes_that_are_not_acknowledged_are_refused(db: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_settings({"db": db})
    assert caught.value.message == UNACKNOWLEDGED


@pytest.mark.parametrize("name", ["", "a.b", "a b", "a$b"])
def test_a_name_that_no_database_can_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_settings({"db": {"host": "h", "dbname": name, "user": "me", "password": SECRET}})
    assert caught.value.message == NEITHER


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
