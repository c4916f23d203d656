from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from provgate_client.errors import GatewayUnavailableError, StorageClosedError
from provgate_client.storage import ProvenanceStorageGrpc
from provgate_runtime import ConfigurationError
from provgate_storage import (
    EntityType,
    ProvenanceStorageInterface,
    RelationData,
    RelationType,
    RevisionData,
    get_provenance_storage,
)
from provgate_storage.errors import InvalidValueError
from tests.unit.client.conftest import OpenStorage
from tests.unit.client.gateway import GatewayDouble

DATE = datetime(2004, 2, 29, 12, 0, 0, 123456, tzinfo=UTC)

METHODS = [name for name, _ in inspect.getmembers(ProvenanceStorageInterface, inspect.isfunction) if name[0] != "_"]


def make_id(number: int) -> bytes:
    return number.to_bytes(20, "big")


@pytest.mark.parametrize("name", [*METHODS, "__enter__", "__exit__"])
def test_signatures_are_the_interface_s(name: str) -> None:
    assert inspect.signature(getattr(ProvenanceStorageGrpc, name)) == inspect.signature(
        getattr(ProvenanceStorageInterface, name)
    )


def test_it_is_found_by_its_name() -> None:
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


class TestFacts:
    def test_contents(self, storage: ProvenanceStorageGrpc) -> None:
        dates = {make_id(number): DATE + timedelta(days=number) for number in range(1000)}
        assert storage.content_add({**dates, make_id(5000): None})
        assert storage.content_add([make_id(5001)])
        assert storage.content_get([*dates, make_id(5000), make_id(9999)]) == dates
        assert storage.entity_get_all(EntityType.CONTENT) == {*dates, make_id(5000), make_id(5001)}

    def test_directories_from_an_iterator(self, storage: ProvenanceStorageGrpc) -> None:
        assert storage.directory_add(make_id(number) for number in range(3))
        assert storage.directory_add({make_id(1): DATE})
        assert storage.directory_get(map(make_id, range(3))) == {make_id(1): DATE}
        assert storage.entity_get_all(EntityType.DIRECTORY) == set(map(make_id, range(3)))

    def test_revisions_and_origins(self, storage: ProvenanceStorageGrpc) -> None:
        data = {
            make_id(1): RevisionData(DATE, make_id(7)),
            make_id(2): RevisionData(None, make_id(7)),
            make_id(3): RevisionData(DATE, None),
        }
        assert storage.revision_add({**data, make_id(4): RevisionData(None, None)})
        assert storage.revision_add({make_id(5)})
        assert storage.revision_get(map(make_id, range(10))) == data
        assert storage.origin_add({make_id(7): "https://example.org/ü"})
        assert storage.origin_get([make_id(7), make_id(8)]) == {make_id(7): "https://example.org/ü"}
        assert storage.entity_get_all(EntityType.REVISION) == set(map(make_id, range(1, 6)))

    def test_locations_keep_their_bytes(self, storage: ProvenanceStorageGrpc) -> None:
        paths = {b"", b"src/main.c", b"\xff\xfe/\n", b"x" * 4096}
        assert storage.location_add(paths)
        assert storage.location_get_all() == paths

    def test_relations(self, storage: ProvenanceStorageGrpc) -> None:
        rows = {
            make_id(1): {
                RelationData(make_id(10), b"a"),
                RelationData(make_id(10), b""),
                RelationData(make_id(11), b"b"),
            },
            make_id(2): {RelationData(make_id(11), b"\xff")},
        }
        relation = RelationType.CNT_EARLY_IN_REV
        assert storage.relation_add(relation, rows)
        assert storage.relation_get_all(relation) == rows
        assert storage.relation_get(relation, [make_id(2)]) == {make_id(2): rows[make_id(2)]}
        assert storage.relation_get(relation, [make_id(11)], reverse=True) == {
            make_id(1): {RelationData(make_id(11), b"b")},
            make_id(2): {RelationData(make_id(11), b"\xff")},
        }

    def test_relations_without_paths(self, storage: ProvenanceStorageGrpc) -> None:
        rows = {make_id(1): {RelationData(make_id(2), None)}}
        assert storage.relation_add(RelationType.REV_BEFORE_REV, rows)
        assert storage.relation_get_all(RelationType.REV_BEFORE_REV) == rows

    def test_occurrences(self, storage: ProvenanceStorageGrpc) -> None:
        assert storage.content_find_first(make_id(1)) is None
        storage.origin_add({make_id(7): "https://example.org/"})
        storage.revision_add({make_id(10): RevisionData(DATE, make_id(7)), make_id(11): RevisionData(DATE, None)})
        rows = {make_id(1): {RelationData(make_id(each), b"\xff") for each in (10, 11)}}
        storage.relation_add(RelationType.CNT_EARLY_IN_REV, rows)
        results = list(storage.content_find_all(make_id(1)))
        assert [(each.revision, each.date, each.origin, each.path) for each in results] == [
            (make_id(10), DATE, "https://example.org/", b"\xff"),
            (make_id(11), DATE, None, b"\xff"),
        ]
        assert storage.content_find_first(make_id(1)) == results[0]
        assert list(storage.content_find_all(make_id(1), limit=1)) == results[:1]

    def test_with_path(self, storage: ProvenanceStorageGrpc) -> None:
        assert storage.with_path() is True

    def test_dates_come_back_in_utc(self, storage: ProvenanceStorageGrpc) -> None:
        date = datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=timezone(timedelta(hours=-9)))
        storage.content_add({make_id(1): date})
        found = storage.content_get([make_id(1)])[make_id(1)]
        assert found == date
        assert found.tzinfo is UTC


class TestNothingToDo:
    @pytest.mark.parametrize(
        "call",
        [
            lambda storage: storage.content_add({}),
            lambda storage: storage.content_add(iter(())),
            lambda storage: storage.relation_add(RelationType.CNT_IN_DIR, {make_id(1): set()}),
            lambda storage: storage.content_get([]) == {},
        ],
    )
    def test_no_call_is_made(
        self, storage: ProvenanceStorageGrpc, gateway: GatewayDouble, call: Callable[[Any], bool]
    ) -> None:
        assert call(storage)
        assert gateway.seen.calls == []


class TestBadValues:
    @pytest.mark.parametrize(
        "call",
        [
            lambda storage: storage.content_add({make_id(1): None, "a" * 40: None}),
            lambda storage: storage.content_add({make_id(1): datetime(2020, 1, 1)}),
            lambda storage: storage.content_add({make_id(1): "yesterday"}),
            lambda storage: storage.content_add(make_id(1)),
            lambda storage: storage.directory_add([b"", make_id(1)]),
            lambda storage: storage.directory_add([b"a" * 40]),
            lambda storage: storage.revision_add({make_id(1): RevisionData(None, b"x")}),
            lambda storage: storage.location_add([b"fine", b"a\0b"]),
            lambda storage: storage.location_add([b"x" * 4097]),
            lambda storage: storage.origin_add({make_id(1): ""}),
            lambda storage: storage.relation_add(
                RelationType.REV_IN_ORG, {make_id(1): {RelationData(make_id(2), b"p")}}
            ),
            lambda storage: storage.relation_add(
                RelationType.CNT_IN_DIR, {make_id(1): {RelationData(make_id(2), None)}}
            ),
            lambda storage: storage.relation_add("content_in_origin", {}),
            lambda storage: storage.content_get([make_id(1)] * 20_000 + ["x"]),
            lambda storage: storage.relation_get("", [make_id(1)]),
            lambda storage: storage.entity_get_all("snapshot"),
            lambda storage: storage.content_find_first("a" * 20),
            lambda storage: storage.content_find_all(b"a" * 19),
            lambda storage: storage.content_find_all(make_id(1), limit=0),
            lambda storage: storage.content_find_all(make_id(1), limit=2**63),
        ],
    )
    def test_nothing_is_sent_and_the_storage_lives_on(
        self, storage: ProvenanceStorageGrpc, gateway: GatewayDouble, call: Callable[[Any], Any]
    ) -> None:
        with pytest.raises(InvalidValueError):
            call(storage)
        assert gateway.seen.calls == []
        assert storage.content_add([make_id(1)])

    def test_what_is_no_row_is_a_type_error(self, storage: ProvenanceStorageGrpc) -> None:
        bad: Any
        for bad in ({make_id(1): {(make_id(2), b"")}}, {make_id(1): iter([RelationData(make_id(2), b"")])}):
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
            storage.content_add([make_id(1)])
        with storage:
            assert storage.with_path()

    def test_nobody_there(self) -> None:
        storage = ProvenanceStorageGrpc(url="127.0.0.1:1", connect_timeout_s=0.2)
        with pytest.raises(GatewayUnavailableError, match=r"127\.0\.0\.1:1"):
            storage.open()
        with pytest.raises(StorageClosedError):
            storage.with_path()

    def test_closing_ends_what_is_under_way(self, open_storage: OpenStorage) -> None:
        storage = open_storage()
        results = storage.content_find_all(b"\xff" * 20)
        next(results)
        storage.close()
        with pytest.raises(StorageClosedError):
            list(results)

    def test_a_forked_child_is_told(self, storage: ProvenanceStorageGrpc, monkeypatch: pytest.MonkeyPatch) -> None:
        # Not forked in earnest: the server of this test is in the same process, and gRPC does not survive that.
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
            ({"token": "secret token"}, "token is letters, digits"),
            ({"token": "secret\n"}, "token is letters, digits"),
            ({"token": ""}, "token is letters, digits"),
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
    def test_a_token_is_shown_to_no_reader(self, url: str) -> None:
        settings = ProvenanceStorageGrpc(url=url, token="secret").settings
        assert settings.token == "secret"
        assert "secret" not in f"{settings} {settings!r}"
        assert url in repr(settings)

    def test_a_missing_file_is_named(self) -> None:
        with pytest.raises(ConfigurationError, match=r"provenance.storage.tls_ca_file: /nowhere cannot be read"):
            ProvenanceStorageGrpc(url="localhost:1", tls_ca_file="/nowhere").open()
