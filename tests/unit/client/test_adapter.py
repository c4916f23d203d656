"""The adapter: opening, settings, and invalid values; tests/contract/test_grpc.py has its answers."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from provgate_client.errors import GatewayUnavailableError, StorageClosedError
from provgate_client.storage import ProvenanceStorageGrpc
from provgate_runtime import ConfigurationError
from provgate_storage import ProvenanceStorageInterface, RelationData, RelationType, get_provenance_storage
from provgate_storage.errors import InvalidValueError
from tests.support.gateway_double import GatewayDouble
from tests.unit.client.conftest import OpenStorage

ID = bytes(20)


def test_signatures_are_the_interface_s() -> None:
    methods = [name for name, _ in inspect.getmembers(ProvenanceStorageInterface, inspect.isfunction) if name[0] != "_"]
    for name in (*methods, "__enter__", "__exit__"):
        ours, expected = getattr(ProvenanceStorageGrpc, name), getattr(ProvenanceStorageInterface, name)
        assert inspect.signature(ours) == inspect.signature(expected), name
    storage = get_provenance_storage("grpc", url="localhost:1")
    assert isinstance(storage, ProvenanceStorageGrpc)
    assert isinstance(storage, ProvenanceStorageInterface)


def test_importing_it_imports_no_driver() -> None:
    code = (
        "import sys, provgate_client.adapter, provgate_client.cli\n"
        "print(*sorted({'pika', 'psycopg2', 'msgpack', 'pymongo', 'pygit2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""


def test_no_call_is_made_for_nothing(storage: ProvenanceStorageGrpc, gateway: GatewayDouble) -> None:
    assert storage.content_add({})
    assert storage.content_add(iter(()))
    assert storage.relation_add(RelationType.CNT_IN_DIR, {ID: set()})
    assert storage.content_get([]) == {}
    assert gateway.seen.calls == []


@pytest.mark.parametrize(
    "call",
    [
        lambda storage: storage.content_add({ID: None, "a" * 40: None}),
        lambda storage: storage.content_add({ID: datetime(2020, 1, 1)}),
        lambda storage: storage.content_add(ID),
        lambda storage: storage.location_add([b"fine", b"a\0b"]),
        lambda storage: storage.origin_add({ID: ""}),
        lambda storage: storage.relation_add(RelationType.REV_IN_ORG, {ID: {RelationData(ID, b"p")}}),
        lambda storage: storage.content_get([ID] * 20_000 + ["x"]),
        lambda storage: storage.content_find_first("a" * 20),
        lambda storage: storage.content_find_all(b"a" * 19),
        lambda storage: storage.content_find_all(ID, limit=0),
        lambda storage: storage.content_find_all(ID, limit=2**63),
    ],
)
def test_invalid_values_are_not_sent(
    storage: ProvenanceStorageGrpc, gateway: GatewayDouble, call: Callable[[Any], Any]
) -> None:
    with pytest.raises(InvalidValueError):
        call(storage)
    assert gateway.seen.calls == []
    assert storage.content_add([ID])


def test_what_is_no_row_is_a_type_error(storage: ProvenanceStorageGrpc) -> None:
    bad: Any
    for bad in ({ID: {(ID, b"")}}, {ID: iter([RelationData(ID, b"")])}):
        with pytest.raises(TypeError):
            storage.relation_add(RelationType.CNT_IN_DIR, bad)


class TestOpening:
    def test_twice_and_again(self, gateway: GatewayDouble) -> None:
        storage = ProvenanceStorageGrpc(url=f"grpc://{gateway.address}")
        with pytest.raises(StorageClosedError):
            storage.with_path()
        storage.open()
        storage.open()
        assert storage.with_path()
        storage.close()
        storage.close()
        with pytest.raises(StorageClosedError):
            storage.content_add([ID])
        with storage:
            assert storage.with_path()

    @pytest.mark.parametrize(
        "call",
        [
            lambda storage: storage.with_path(),
            lambda storage: storage.content_get([ID]),
            lambda storage: storage.content_add([ID]),
        ],
    )
    def test_closing_while_a_call_starts(
        self, storage: ProvenanceStorageGrpc, monkeypatch: pytest.MonkeyPatch, call: Callable[[Any], Any]
    ) -> None:
        def close_and_getpid() -> int:
            # Asked after the check for a closed storage, and before the call.
            monkeypatch.undo()
            storage.close()
            return os.getpid()

        monkeypatch.setattr(os, "getpid", close_and_getpid)
        with pytest.raises(StorageClosedError):
            call(storage)

    def test_nobody_there(self) -> None:
        storage = ProvenanceStorageGrpc(url="127.0.0.1:1", connect_timeout_s=0.2)
        with pytest.raises(GatewayUnavailableError, match=r"127\.0\.0\.1:1"):
            storage.open()
        with pytest.raises(StorageClosedError):
            storage.with_path()

    def test_after_a_fork(self, storage: ProvenanceStorageGrpc, monkeypatch: pytest.MonkeyPatch) -> None:
        # No real fork: the server of this test is in the same process, and gRPC does not survive that.
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: 1)
            with pytest.raises(StorageClosedError, match="forked"):
                storage.with_path()
        assert storage.with_path()


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "text"),
        [
            ({"url": "localhost"}, "provenance.storage: url"),
            ({"url": "amqp://localhost:5672"}, "provenance.storage: url"),
            ({"url": "http://user:secret@localhost:1"}, "provenance.storage: url"),
            ({"url": "localhost:notaport"}, "provenance.storage: "),
            ({"url": "localhost:1/path"}, "provenance.storage: url"),
            ({"urls": "localhost:1"}, "unknown field `urls`"),
            ({"message_entries": 0}, "provenance.storage.message_entries"),
            ({"write_timeout_s": -1}, "write_timeout_s"),
            ({"tls_cert_file": "x"}, "tls_key_file"),
            ({"retry_time_s": "long"}, "provenance.storage.retry_time_s"),
            ({"url": "gate.example.org:1", "token": "secret"}, "token would be sent in plain text"),
            ({"token": "secret token"}, "token must be letters, digits"),
            ({"token": "secret\n"}, "token must be letters, digits"),
            ({"token": ""}, "token must be letters, digits"),
            ({"token": ["secret"]}, "provenance.storage.token: Expected `str | null`, got `array`"),
        ],
    )
    def test_wrong_ones_are_named(self, settings: dict[str, Any], text: str) -> None:
        with pytest.raises(ConfigurationError, match=text) as caught:
            ProvenanceStorageGrpc(**settings)
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize(
        ("url", "target", "secure"),
        [
            ("localhost:50051", "localhost:50051", False),
            ("http://[::1]:50051/", "[::1]:50051", False),
            ("grpc://gate.example.org:1", "gate.example.org:1", False),
            ("https://gate.example.org:443", "gate.example.org:443", True),
            ("GRPCS://gate.example.org:443", "gate.example.org:443", True),
        ],
    )
    def test_addresses(self, url: str, target: str, secure: bool) -> None:
        settings = ProvenanceStorageGrpc(url=url).settings
        assert (settings.address.target, settings.secure) == (target, secure)

    @pytest.mark.parametrize("url", ["localhost:1", "127.0.0.1:1", "grpcs://gate.example.org:1"])
    def test_a_token_is_not_shown(self, url: str) -> None:
        settings = ProvenanceStorageGrpc(url=url, token="secret").settings
        assert settings.token == "secret"
        assert "secret" not in f"{settings} {settings!r}"
        assert url in repr(settings)

    def test_a_missing_file_is_named(self) -> None:
        with pytest.raises(ConfigurationError, match=r"provenance.storage.tls_ca_file: /nowhere cannot be read"):
            ProvenanceStorageGrpc(url="localhost:1", tls_ca_file="/nowhere").open()


def test_two_adapters_have_a_connection_each(open_storage: OpenStorage) -> None:
    """Every adapter has its own connection; closing one leaves the other alone."""
    one, other = open_storage(), open_storage()
    one.close()
    assert other.with_path()
