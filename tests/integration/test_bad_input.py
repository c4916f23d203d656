"""Invalid requests: a typed error, nothing published or stored, and the next call works.

tests/unit/gateway tries every invalid value of every field; here is one of each kind for each method.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import grpc
import psycopg2
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from provgate.v1 import model_pb2
from provgate.v1 import provenance_storage_pb2 as pb2
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_stack.stack import Stack
from provgate_storage.model import RelationType
from tests.support.gateway_calls import (
    SERVICE,
    Connected,
    Outcome,
    connected,
    contents,
    outcome_of,
    outcome_of_unary,
    progress_of,
    write,
)
from tests.support.scripted_workers import ScriptedWorkers

ID = b"\x01" * 20
SHORT = b"x" * 19
GOOD = model_pb2.Content(id=ID)
BAD_DATE = Timestamp(nanos=-1)
CNT_IN_DIR = model_pb2.RELATION_TYPE_CNT_IN_DIR
REV_IN_ORG = model_pb2.RELATION_TYPE_REV_IN_ORG


@pytest.fixture(scope="module")
def gateway(workerless_stack: Stack) -> Iterator[Connected]:
    program = workerless_stack.start_gateway()
    with connected(program.address) as connection:
        yield connection
    assert program.terminate() == 0
    # gRPC logs garbage for its own services itself.
    assert " ERROR provgate" not in program.log_path.read_text(encoding="utf-8")


@pytest.fixture
def channel(gateway: Connected, scripted_workers: ScriptedWorkers, module_postgres_dsn: str) -> Iterator[grpc.Channel]:
    """The module's one channel. After each test nothing is published or stored, and the next call works."""
    channel, stub = gateway
    yield channel
    assert not scripted_workers.requests
    assert _stored_row_count(module_postgres_dsn) == 0
    assert write(stub.ContentAdd, [contents(3)]).counts == (3, 3, 3)
    assert outcome_of(stub.ContentGet(pb2.ContentGetRequest(ids=[ID]), timeout=20)).ok


@pytest.fixture
def stub(channel: grpc.Channel, gateway: Connected) -> ProvenanceStorageStub:
    return gateway[1]


def _stored_row_count(dsn: str) -> int:
    tables = ["content", "directory", "revision", "origin", "location", *(relation.value for relation in RelationType)]
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT " + " + ".join(f"(SELECT count(*) FROM {table})" for table in tables))
        return int((cursor.fetchone() or (-1,))[0])


def _contents(*items: model_pb2.Content) -> pb2.ContentAddRequest:
    return pb2.ContentAddRequest(contents=items)


def _directory(**fields: Any) -> pb2.DirectoryAddRequest:
    return pb2.DirectoryAddRequest(directories=[model_pb2.Directory(**({"id": ID} | fields))])


def _revision(**fields: Any) -> pb2.RevisionAddRequest:
    return pb2.RevisionAddRequest(revisions=[model_pb2.Revision(**({"id": ID} | fields))])


def _origin(**fields: Any) -> pb2.OriginAddRequest:
    return pb2.OriginAddRequest(origins=[model_pb2.Origin(**({"id": ID, "url": "u"} | fields))])


def _relation(relation: Any, **fields: Any) -> pb2.RelationAddRequest:
    row = model_pb2.Relation(**({"src": ID, "dst": ID} | fields))
    return pb2.RelationAddRequest(relation=relation, relations=[row])


BAD_WRITES: list[tuple[str, Any, str, str]] = [
    ("ContentAdd", _contents(*[GOOD] * 17, model_pb2.Content(id=SHORT), GOOD), "INVALID_ID", "contents[17].id"),
    ("ContentAdd", _contents(GOOD, model_pb2.Content(id=ID, date=BAD_DATE)), "INVALID_DATE", "contents[1].date"),
    ("DirectoryAdd", _directory(id=SHORT), "INVALID_ID", "directories[0].id"),
    ("DirectoryAdd", _directory(date=BAD_DATE), "INVALID_DATE", "directories[0].date"),
    ("RevisionAdd", _revision(id=SHORT), "INVALID_ID", "revisions[0].id"),
    ("RevisionAdd", _revision(origin=SHORT), "INVALID_ID", "revisions[0].origin"),
    ("RevisionAdd", _revision(date=BAD_DATE), "INVALID_DATE", "revisions[0].date"),
    ("OriginAdd", _origin(id=SHORT), "INVALID_ID", "origins[0].id"),
    ("OriginAdd", _origin(url="\0"), "INVALID_URL", "origins[0].url"),
    ("LocationAdd", pb2.LocationAddRequest(paths=[b"good", b"a\0b"]), "INVALID_PATH", "paths[1]"),
    ("RelationAdd", _relation(CNT_IN_DIR, src=SHORT, path=b""), "INVALID_ID", "relations[0].src"),
    ("RelationAdd", _relation(CNT_IN_DIR, dst=SHORT, path=b""), "INVALID_ID", "relations[0].dst"),
    ("RelationAdd", _relation(CNT_IN_DIR, path=b"x" * 4097), "INVALID_PATH", "relations[0].path"),
    ("RelationAdd", _relation(CNT_IN_DIR), "INVALID_PATH", "relations[0].path"),
    ("RelationAdd", _relation(REV_IN_ORG, path=b"p"), "INVALID_PATH", "relations[0].path"),
    ("RelationAdd", _relation(6, path=b"p"), "INVALID_ENUM", "relation"),
    ("RelationAdd", pb2.RelationAddRequest(), "INVALID_ENUM", "relation"),
]
BAD_READS: list[tuple[str, Any, str, str]] = [
    ("ContentGet", pb2.ContentGetRequest(ids=[ID, ID, SHORT]), "INVALID_ID", "ids[2]"),
    ("DirectoryGet", pb2.DirectoryGetRequest(ids=[SHORT]), "INVALID_ID", "ids[0]"),
    ("RevisionGet", pb2.RevisionGetRequest(ids=[SHORT]), "INVALID_ID", "ids[0]"),
    ("OriginGet", pb2.OriginGetRequest(ids=[SHORT]), "INVALID_ID", "ids[0]"),
    ("RelationGet", pb2.RelationGetRequest(relation=CNT_IN_DIR, ids=[SHORT]), "INVALID_ID", "ids[0]"),
    ("RelationGet", pb2.RelationGetRequest(relation=6), "INVALID_ENUM", "relation"),  # type: ignore[arg-type]
    ("RelationGetAll", pb2.RelationGetAllRequest(), "INVALID_ENUM", "relation"),
    ("EntityGetAll", pb2.EntityGetAllRequest(entity=-1), "INVALID_ENUM", "entity"),  # type: ignore[arg-type]
    ("ContentFindAll", pb2.ContentFindAllRequest(id=SHORT), "INVALID_ID", "id"),
    ("ContentFindAll", pb2.ContentFindAllRequest(id=ID, limit=0), "INVALID_LIMIT", "limit"),
]


def _check_invalid(outcome: Outcome, reason: str, field_path: str) -> None:
    assert outcome.code is grpc.StatusCode.INVALID_ARGUMENT
    assert (outcome.reason, outcome.field_path) == (reason, field_path)
    assert outcome.message.startswith(f"{field_path}: ")
    assert "RetryInfo" not in outcome.details


@pytest.mark.parametrize(("method", "message", "reason", "field_path"), BAD_WRITES)
def test_a_bad_entry_is_refused_with_its_whole_message(
    stub: ProvenanceStorageStub, method: str, message: Any, reason: str, field_path: str
) -> None:
    outcome = write(getattr(stub, method), [message])
    _check_invalid(outcome, reason, field_path)
    assert outcome.counts == (0, 0, 0)


def test_bad_values_of_reads_are_refused(stub: ProvenanceStorageStub) -> None:
    for method, message, reason, field_path in BAD_READS:
        _check_invalid(outcome_of(getattr(stub, method)(message, timeout=20)), reason, field_path)
    unary = outcome_of_unary(lambda: stub.ContentFindFirst(pb2.ContentFindFirstRequest(id=SHORT), timeout=20))
    _check_invalid(unary, "INVALID_ID", "id")
    huge = pb2.ContentFindAllRequest(id=ID, limit=2**63 - 1)
    assert outcome_of(stub.ContentFindAll(huge, timeout=20)).ok


def test_what_came_before_a_bad_message_is_published(gateway: Connected, scripted_workers: ScriptedWorkers) -> None:
    messages = [contents(30), _contents(GOOD, model_pb2.Content(id=b"")), contents(30, start=30)]
    outcome = write(gateway[1].ContentAdd, messages)
    _check_invalid(outcome, "INVALID_ID", "contents[1].id")
    assert outcome.counts[0] == 30
    requests = scripted_workers.wait_for(16)
    assert sum(len(request.entries) for request in requests) == 30


def test_duplicates_and_odd_paths_are_good_input(gateway: Connected, scripted_workers: ScriptedWorkers) -> None:
    assert write(gateway[1].ContentAdd, [_contents(GOOD, GOOD, GOOD)]).counts == (3, 3, 3)
    scripted_workers.reset()
    path = bytes(range(1, 256))
    assert write(gateway[1].RelationAdd, [_relation(CNT_IN_DIR, path=path)]).counts == (1, 1, 1)
    (request,) = scripted_workers.requests
    assert request.entries == [(ID, ID, path)]


GARBAGE = [b"\xff\xff", b"\x0a\x7f", b"\x00", bytes(range(256))]
WRITES = ["ContentAdd", "DirectoryAdd", "RevisionAdd", "OriginAdd", "LocationAdd", "RelationAdd"]
STREAMED_READS = [
    *("ContentGet", "DirectoryGet", "RelationGet", "RelationGetAll"),
    *("EntityGetAll", "LocationGetAll", "ContentFindAll"),
]


def _check_malformed(outcome: Outcome) -> None:
    assert outcome.code is grpc.StatusCode.INVALID_ARGUMENT
    assert outcome.reason == "MALFORMED_REQUEST"
    assert outcome.message == "the request cannot be decoded"


@pytest.mark.parametrize("method", WRITES)
def test_garbage_in_a_write(channel: grpc.Channel, method: str) -> None:
    call: Any = channel.stream_stream(f"/{SERVICE}/{method}", response_deserializer=pb2.ContentAddResponse.FromString)
    # A URL that is not UTF-8.
    origin = model_pb2.Origin(id=ID, url="u\x7f").SerializeToString().replace(b"\x7f", b"\xff")
    for garbage in (*GARBAGE, b"\x0a" + bytes([len(origin)]) + origin) if method == "OriginAdd" else GARBAGE:
        outcome = progress_of(outcome_of(call(iter([garbage]), timeout=20)))
        _check_malformed(outcome)
        assert outcome.counts == (0, 0, 0)


def test_garbage_in_a_read(channel: grpc.Channel) -> None:
    for method in STREAMED_READS:
        call: Any = channel.unary_stream(f"/{SERVICE}/{method}")
        _check_malformed(outcome_of(call(GARBAGE[0], timeout=20)))
    for method in ("ContentFindFirst", "WithPath"):
        unary: Any = channel.unary_unary(f"/{SERVICE}/{method}")
        _check_malformed(outcome_of_unary(partial(unary, GARBAGE[0], timeout=20)))


def test_garbage_for_another_service_shows_nothing_of_the_gateway(channel: grpc.Channel) -> None:
    check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
    reflect: Any = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    for outcome in (
        outcome_of_unary(lambda: check(GARBAGE[0], timeout=20)),
        outcome_of(reflect(iter([GARBAGE[0]]), timeout=20)),
    ):
        assert not outcome.ok
        assert "Undecodable" not in outcome.message


def test_a_message_over_4_mib_is_refused(stub: ProvenanceStorageStub) -> None:
    message = pb2.LocationAddRequest(paths=[b"x" * 4096] * 1100)
    ids = pb2.ContentGetRequest(ids=[ID] * 200_000)
    for outcome in (write(stub.LocationAdd, [message]), outcome_of(stub.ContentGet(ids, timeout=20))):
        assert outcome.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "4194304" in outcome.message


def test_an_unknown_method_is_unimplemented(channel: grpc.Channel) -> None:
    call: Any = channel.unary_unary(f"/{SERVICE}/ContentForget")
    assert outcome_of_unary(lambda: call(b"", timeout=20)).code is grpc.StatusCode.UNIMPLEMENTED
