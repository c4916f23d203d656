"""What a client may send that is wrong: a typed error, nothing published or stored, and the next call works."""

from __future__ import annotations

from collections.abc import Iterator
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
BAD_IDS = [b"", b"x" * 19, b"x" * 21, b"0123456789abcdef0123456789abcdef01234567"]
BAD_DATES = [
    Timestamp(seconds=-62_135_596_801),
    Timestamp(seconds=253_402_300_800),
    Timestamp(seconds=2**63 - 1),
    Timestamp(nanos=-1),
    Timestamp(nanos=10**9),
]
BAD_PATHS = [b"\0", b"a\0b", b"x" * 4097]
BAD_URLS = ["", "\0", "https://example.org/\0", "x" * 2**20]
CNT_IN_DIR = model_pb2.RELATION_TYPE_CNT_IN_DIR
PATHLESS = (model_pb2.RELATION_TYPE_REV_IN_ORG, model_pb2.RELATION_TYPE_REV_BEFORE_REV)

Connected = tuple[grpc.Channel, ProvenanceStorageStub]


@pytest.fixture(scope="module")
def gateway(workerless_stack: Stack) -> Iterator[Connected]:
    """A gateway that outlives whatever this module sends."""
    program = workerless_stack.start_gateway()
    with connected(program.address) as connection:
        yield connection
    assert program.terminate() == 0
    # What gRPC says of garbage for its own services is not ours.
    assert " ERROR provgate" not in program.log_path.read_text(encoding="utf-8")


@pytest.fixture
def channel(gateway: Connected, scripted_workers: ScriptedWorkers, module_postgres_dsn: str) -> Iterator[grpc.Channel]:
    """The module's one channel. After each test nothing is published or stored, and the next call works."""
    channel, stub = gateway
    yield channel
    assert not scripted_workers.requests
    assert _stored_row_count(module_postgres_dsn) == 0
    assert write(stub.ContentAdd, [contents(3)]).counts == (3, 3, 3)
    assert outcome_of(stub.ContentGet(pb2.ContentGetRequest(ids=[ID]), timeout=5)).ok


@pytest.fixture
def stub(channel: grpc.Channel, gateway: Connected) -> ProvenanceStorageStub:
    return gateway[1]


def _stored_row_count(dsn: str) -> int:
    tables = ["content", "directory", "revision", "origin", "location", *(relation.value for relation in RelationType)]
    counts = " + ".join(f"(SELECT count(*) FROM {table})" for table in tables)
    connection = psycopg2.connect(dsn)
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {counts}")
            (count,) = cursor.fetchone() or (None,)
            return int(count)
    finally:
        connection.close()


def _contents(*items: model_pb2.Content) -> pb2.ContentAddRequest:
    return pb2.ContentAddRequest(contents=items)


def _relation(relation: Any, **fields: Any) -> pb2.RelationAddRequest:
    row = model_pb2.Relation(**{"src": ID, "dst": ID, **fields})
    return pb2.RelationAddRequest(relation=relation, relations=[row])


GOOD = model_pb2.Content(id=ID)

BAD_WRITES: list[tuple[str, Any, str, str]] = [
    *(("ContentAdd", _contents(model_pb2.Content(id=id)), "INVALID_ID", "contents[0].id") for id in BAD_IDS),
    ("ContentAdd", _contents(*[GOOD] * 17, model_pb2.Content(id=b"x"), GOOD), "INVALID_ID", "contents[17].id"),
    *(
        ("ContentAdd", _contents(GOOD, model_pb2.Content(id=ID, date=date)), "INVALID_DATE", "contents[1].date")
        for date in BAD_DATES
    ),
    *(
        (
            "DirectoryAdd",
            pb2.DirectoryAddRequest(directories=[model_pb2.Directory(id=id)]),
            "INVALID_ID",
            "directories[0].id",
        )
        for id in BAD_IDS
    ),
    (
        "DirectoryAdd",
        pb2.DirectoryAddRequest(directories=[model_pb2.Directory(id=ID, date=BAD_DATES[0])]),
        "INVALID_DATE",
        "directories[0].date",
    ),
    *(
        ("RevisionAdd", pb2.RevisionAddRequest(revisions=[model_pb2.Revision(id=id)]), "INVALID_ID", "revisions[0].id")
        for id in BAD_IDS
    ),
    *(
        (
            "RevisionAdd",
            pb2.RevisionAddRequest(revisions=[model_pb2.Revision(id=ID, origin=id)]),
            "INVALID_ID",
            "revisions[0].origin",
        )
        for id in BAD_IDS
    ),
    (
        "RevisionAdd",
        pb2.RevisionAddRequest(revisions=[model_pb2.Revision(id=ID, date=BAD_DATES[1])]),
        "INVALID_DATE",
        "revisions[0].date",
    ),
    *(
        ("OriginAdd", pb2.OriginAddRequest(origins=[model_pb2.Origin(id=id, url="u")]), "INVALID_ID", "origins[0].id")
        for id in BAD_IDS
    ),
    *(
        ("OriginAdd", pb2.OriginAddRequest(origins=[model_pb2.Origin(id=ID, url=url)]), "INVALID_URL", "origins[0].url")
        for url in BAD_URLS
    ),
    *(("LocationAdd", pb2.LocationAddRequest(paths=[b"good", path]), "INVALID_PATH", "paths[1]") for path in BAD_PATHS),
    *(("RelationAdd", _relation(CNT_IN_DIR, src=id, path=b""), "INVALID_ID", "relations[0].src") for id in BAD_IDS),
    *(("RelationAdd", _relation(CNT_IN_DIR, dst=id, path=b""), "INVALID_ID", "relations[0].dst") for id in BAD_IDS),
    *(("RelationAdd", _relation(CNT_IN_DIR, path=path), "INVALID_PATH", "relations[0].path") for path in BAD_PATHS),
    ("RelationAdd", _relation(CNT_IN_DIR), "INVALID_PATH", "relations[0].path"),
    *(
        ("RelationAdd", _relation(relation, path=path), "INVALID_PATH", "relations[0].path")
        for relation in PATHLESS
        for path in (b"", b"p")
    ),
    *(("RelationAdd", _relation(number, path=b"p"), "INVALID_ENUM", "relation") for number in (0, 6, -1, 2**31 - 1)),
    ("RelationAdd", pb2.RelationAddRequest(), "INVALID_ENUM", "relation"),
]


@pytest.mark.parametrize(("method", "message", "reason", "field_path"), BAD_WRITES)
def test_a_bad_entry_is_refused_with_its_whole_message(
    stub: ProvenanceStorageStub, method: str, message: Any, reason: str, field_path: str
) -> None:
    outcome = write(getattr(stub, method), [message])
    _check_invalid(outcome, reason, field_path)
    assert outcome.counts == (0, 0, 0)


def _check_invalid(outcome: Outcome, reason: str, field_path: str) -> None:
    assert outcome.code is grpc.StatusCode.INVALID_ARGUMENT
    assert (outcome.reason, outcome.field_path) == (reason, field_path)
    assert outcome.message.startswith(f"{field_path}: ")
    assert "RetryInfo" not in outcome.details


BAD_READS: list[tuple[str, Any, str, str]] = [
    *(
        (method, make(ids=[ID, ID, id]), "INVALID_ID", "ids[2]")
        for method, make in (
            ("ContentGet", pb2.ContentGetRequest),
            ("DirectoryGet", pb2.DirectoryGetRequest),
            ("RevisionGet", pb2.RevisionGetRequest),
            ("OriginGet", pb2.OriginGetRequest),
        )
        for id in BAD_IDS
    ),
    *(("RelationGet", pb2.RelationGetRequest(relation=CNT_IN_DIR, ids=[id]), "INVALID_ID", "ids[0]") for id in BAD_IDS),
    *(("RelationGet", pb2.RelationGetRequest(relation=n), "INVALID_ENUM", "relation") for n in (0, 6, -1)),  # type: ignore[arg-type]
    *(("RelationGetAll", pb2.RelationGetAllRequest(relation=n), "INVALID_ENUM", "relation") for n in (0, 6, -1)),  # type: ignore[arg-type]
    *(("EntityGetAll", pb2.EntityGetAllRequest(entity=n), "INVALID_ENUM", "entity") for n in (0, 5, -1)),  # type: ignore[arg-type]
    *(("ContentFindAll", pb2.ContentFindAllRequest(id=id), "INVALID_ID", "id") for id in BAD_IDS),
    *(
        ("ContentFindAll", pb2.ContentFindAllRequest(id=ID, limit=limit), "INVALID_LIMIT", "limit")
        for limit in (0, -1, -(2**63))
    ),
]


@pytest.mark.parametrize(("method", "message", "reason", "field_path"), BAD_READS)
def test_a_bad_value_of_a_read_is_refused(
    stub: ProvenanceStorageStub, method: str, message: Any, reason: str, field_path: str
) -> None:
    _check_invalid(outcome_of(getattr(stub, method)(message, timeout=5)), reason, field_path)


@pytest.mark.parametrize("id", BAD_IDS)
def test_a_bad_id_of_a_unary_read_is_refused(stub: ProvenanceStorageStub, id: bytes) -> None:
    call = outcome_of_unary(lambda: stub.ContentFindFirst(pb2.ContentFindFirstRequest(id=id), timeout=5))
    _check_invalid(call, "INVALID_ID", "id")


@pytest.mark.parametrize("limit", [1, 2**63 - 1])
def test_a_huge_limit_is_one(stub: ProvenanceStorageStub, limit: int) -> None:
    assert outcome_of(stub.ContentFindAll(pb2.ContentFindAllRequest(id=ID, limit=limit), timeout=5)).ok


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


WRITE_METHODS = ["ContentAdd", "DirectoryAdd", "RevisionAdd", "OriginAdd", "LocationAdd", "RelationAdd"]
STREAM_METHODS = [
    "ContentGet",
    "DirectoryGet",
    "RelationGet",
    "RelationGetAll",
    "EntityGetAll",
    "LocationGetAll",
    "ContentFindAll",
]
GARBAGE = [b"\xff\xff", b"\x0a\x7f", b"\x00", bytes(range(256))]


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("method", WRITE_METHODS)
def test_garbage_in_a_write(channel: grpc.Channel, method: str, garbage: bytes) -> None:
    call: Any = channel.stream_stream(f"/{SERVICE}/{method}", response_deserializer=pb2.ContentAddResponse.FromString)
    outcome = progress_of(outcome_of(call(iter([garbage]), timeout=5)))
    _check_malformed(outcome)
    assert outcome.counts == (0, 0, 0)


@pytest.mark.parametrize("method", STREAM_METHODS)
def test_garbage_in_a_streamed_read(channel: grpc.Channel, method: str) -> None:
    call: Any = channel.unary_stream(f"/{SERVICE}/{method}")
    _check_malformed(outcome_of(call(GARBAGE[0], timeout=5)))


@pytest.mark.parametrize("method", ["ContentFindFirst", "WithPath"])
def test_garbage_in_a_unary_read(channel: grpc.Channel, method: str) -> None:
    call: Any = channel.unary_unary(f"/{SERVICE}/{method}")
    _check_malformed(outcome_of_unary(lambda: call(GARBAGE[0], timeout=5)))


def test_a_url_that_is_not_utf8(channel: grpc.Channel) -> None:
    origin = model_pb2.Origin(id=ID, url="u\x7f").SerializeToString().replace(b"\x7f", b"\xff")
    message = b"\x0a" + bytes([len(origin)]) + origin
    call: Any = channel.stream_stream(f"/{SERVICE}/OriginAdd")
    _check_malformed(outcome_of(call(iter([message]), timeout=5)))


def _check_malformed(outcome: Outcome) -> None:
    assert outcome.code is grpc.StatusCode.INVALID_ARGUMENT
    assert outcome.reason == "MALFORMED_REQUEST"
    assert outcome.message == "the request cannot be decoded"


@pytest.mark.parametrize("service", ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"])
def test_garbage_for_another_service_shows_nothing_of_the_gateway(channel: grpc.Channel, service: str) -> None:
    stream: Any = channel.stream_stream(f"/{service}/ServerReflectionInfo")
    check: Any = channel.unary_unary(f"/{service}/Check")
    if service.endswith("Health"):
        outcome = outcome_of_unary(lambda: check(GARBAGE[0], timeout=5))
    else:
        outcome = outcome_of(stream(iter([GARBAGE[0]]), timeout=5))
    assert not outcome.ok
    assert "Undecodable" not in outcome.message


def test_a_message_over_4_mib_is_refused(stub: ProvenanceStorageStub) -> None:
    message = pb2.LocationAddRequest(paths=[b"x" * 4096] * 1100)
    assert message.ByteSize() > 4 * 2**20
    outcome = write(stub.LocationAdd, [message])
    assert outcome.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "4194304" in outcome.message


def test_a_message_over_4_mib_is_refused_in_a_read(stub: ProvenanceStorageStub) -> None:
    outcome = outcome_of(stub.ContentGet(pb2.ContentGetRequest(ids=[ID] * 200_000), timeout=5))
    assert outcome.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "4194304" in outcome.message


def test_an_unknown_method_is_unimplemented(channel: grpc.Channel) -> None:
    call: Any = channel.unary_unary(f"/{SERVICE}/ContentForget")
    assert outcome_of_unary(lambda: call(b"", timeout=5)).code is grpc.StatusCode.UNIMPLEMENTED
