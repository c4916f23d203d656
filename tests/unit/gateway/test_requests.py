"""Requests become rows, or are refused with the place of what is invalid."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from provgate.v1 import errors_pb2, model_pb2
from provgate.v1 import provenance_storage_pb2 as pb2
from provgate_broker.topology.policy import Operation, WriteMethod
from provgate_gateway.errors import CallError
from provgate_gateway.rpc import requests
from provgate_gateway.rpc.responses import set_date
from provgate_storage.errors import InvalidValueError
from provgate_storage.model import EntityType, RelationType
from provgate_storage.rows.rows import Row
from provgate_storage.rows.values import (
    MICROSECONDS_MAX,
    MICROSECONDS_MIN,
    check_id,
    check_limit,
    to_date,
    to_microseconds,
)

ID = b"\x01" * 20
OTHER = b"\x02" * 20
NOON = Timestamp(seconds=43_200)
BAD_IDS = [b"", b"x" * 19, b"x" * 21, b"a" * 40]

CNT_IN_DIR = model_pb2.RELATION_TYPE_CNT_IN_DIR
REV_IN_ORG = model_pb2.RELATION_TYPE_REV_IN_ORG
REV_BEFORE_REV = model_pb2.RELATION_TYPE_REV_BEFORE_REV


Rows = Callable[[], list[Row]]


def contents(*items: model_pb2.Content, **columns: Any) -> Rows:
    """Returns what makes rows of a message of entries, or of one with a block of columns; so in all functions here."""
    blocks = [model_pb2.DatedColumns(**columns)] if columns else []
    return partial(requests.content_rows, pb2.ContentAddRequest(contents=items, columns=blocks))


def directories(*items: model_pb2.Directory, **columns: Any) -> Rows:
    blocks = [model_pb2.DatedColumns(**columns)] if columns else []
    return partial(requests.directory_rows, pb2.DirectoryAddRequest(directories=items, columns=blocks))


def revisions(*items: model_pb2.Revision, **columns: Any) -> Rows:
    blocks = [model_pb2.RevisionColumns(**columns)] if columns else []
    return partial(requests.revision_rows, pb2.RevisionAddRequest(revisions=items, columns=blocks))


def origins(*items: model_pb2.Origin, **columns: Any) -> Rows:
    blocks = [model_pb2.OriginColumns(**columns)] if columns else []
    return partial(requests.origin_rows, pb2.OriginAddRequest(origins=items, columns=blocks))


def locations(*paths: bytes) -> Rows:
    return partial(requests.location_rows, pb2.LocationAddRequest(paths=paths))


def relations(relation: Any, *items: model_pb2.Relation, **columns: Any) -> Rows:
    blocks = [model_pb2.RelationColumns(**columns)] if columns else []
    request = pb2.RelationAddRequest(relation=relation, relations=items, columns=blocks)
    return partial(requests.relation_rows, request)


GOOD = model_pb2.Content(id=ID)
relation_row = partial(model_pb2.Relation, src=ID, dst=ID)

WITH_ID: dict[str, Callable[[bytes], Callable[[], object]]] = {
    "contents[0].id": lambda id: contents(model_pb2.Content(id=id)),
    "contents[17].id": lambda id: contents(*[GOOD] * 17, model_pb2.Content(id=id), GOOD),
    "directories[0].id": lambda id: directories(model_pb2.Directory(id=id)),
    "revisions[0].id": lambda id: revisions(model_pb2.Revision(id=id)),
    "revisions[0].origin": lambda id: revisions(model_pb2.Revision(id=ID, origin=id)),
    "origins[0].id": lambda id: origins(model_pb2.Origin(id=id, url="u")),
    "relations[0].src": lambda id: relations(CNT_IN_DIR, relation_row(src=id, path=b"")),
    "relations[0].dst": lambda id: relations(CNT_IN_DIR, relation_row(dst=id, path=b"")),
    "ids[2]": lambda id: partial(requests.ids, [ID, ID, id, ID]),
    "id": lambda id: partial(requests.checked, check_id, id, "id"),
}
BAD_DATES = [
    Timestamp(seconds=-62_135_596_801),
    Timestamp(seconds=253_402_300_800),
    Timestamp(seconds=2**63 - 1),
    Timestamp(seconds=-(2**63)),
    Timestamp(nanos=-1),
    Timestamp(nanos=1_000_000_000),
    Timestamp(nanos=-(2**31)),
]
BAD_URLS = ["", "\0", "http://\0", "x" * 8193, "é" * 4097, "x" * 2**20]
BAD_RELATION_PATHS = [
    *((CNT_IN_DIR, path) for path in (b"\0", b"x" * 4097, None)),
    (model_pb2.RELATION_TYPE_CNT_EARLY_IN_REV, None),
    (model_pb2.RELATION_TYPE_DIR_IN_REV, None),
    *((relation, path) for relation in (REV_IN_ORG, REV_BEFORE_REV) for path in (b"", b"p")),
]

BAD: list[tuple[Callable[[], object], str, str]] = [
    *((make(id), "INVALID_ID", path) for path, make in WITH_ID.items() for id in BAD_IDS),
    (partial(requests.ids, [ID] * 100_001), "TOO_MANY_IDS", "ids"),
    *((contents(GOOD, model_pb2.Content(id=ID, date=date)), "INVALID_DATE", "contents[1].date") for date in BAD_DATES),
    (directories(model_pb2.Directory(id=ID, date=Timestamp(nanos=-1))), "INVALID_DATE", "directories[0].date"),
    (revisions(model_pb2.Revision(id=ID, date=Timestamp(nanos=-1))), "INVALID_DATE", "revisions[0].date"),
    *((locations(b"a", path), "INVALID_PATH", "paths[1]") for path in (b"b\0c", b"x" * 4097)),
    *(
        (relations(relation, relation_row(path=path)), "INVALID_PATH", "relations[0].path")
        for relation, path in BAD_RELATION_PATHS
    ),
    (relations(CNT_IN_DIR, relation_row(path=b""), relation_row()), "INVALID_PATH", "relations[1].path"),
    *((origins(model_pb2.Origin(id=ID, url=url)), "INVALID_URL", "origins[0].url") for url in BAD_URLS),
    *((relations(number), "INVALID_ENUM", "relation") for number in (0, 6, -1, 2**31 - 1)),
    *((relations(number, model_pb2.Relation(src=b"")), "INVALID_ENUM", "relation") for number in (0, 6, -1)),
    *((partial(requests.entity_type, number), "INVALID_ENUM", "entity") for number in (0, 5, -1)),
    *(
        (partial(requests.checked, check_limit, limit, "limit"), "INVALID_LIMIT", "limit")
        for limit in (0, -1, -(2**63))
    ),
]

BAD_COLUMNS: list[tuple[Rows, str, str]] = [
    (contents(ids=[ID, b"x"]), "INVALID_ID", "columns[0].ids[1]"),
    (contents(ids=[b"a" * 40]), "INVALID_ID", "columns[0].ids[0]"),
    (contents(ids=[ID, OTHER], dates=[1]), "INVALID_DATE", "columns[0].dates"),
    (contents(ids=[ID], dates=[1, 2]), "INVALID_DATE", "columns[0].dates"),
    (contents(ids=[]), "INVALID_ID", "columns[0].ids"),
    (contents(dates=[1]), "INVALID_ID", "columns[0].ids"),
    (directories(ids=[]), "INVALID_ID", "columns[0].ids"),
    (revisions(ids=[]), "INVALID_ID", "columns[0].ids"),
    (origins(ids=[]), "INVALID_ID", "columns[0].ids"),
    (relations(CNT_IN_DIR, srcs=[]), "INVALID_ID", "columns[0].srcs"),
    (directories(ids=[ID, OTHER], dates=[0, MICROSECONDS_MAX + 1]), "INVALID_DATE", "columns[0].dates[1]"),
    (directories(ids=[ID, OTHER], dates=[MICROSECONDS_MIN - 1, 0]), "INVALID_DATE", "columns[0].dates[0]"),
    (revisions(ids=[ID, OTHER], origins=[ID]), "INVALID_ID", "columns[0].origins"),
    (revisions(ids=[ID], origins=[b"x"]), "INVALID_ID", "columns[0].origins[0]"),
    (revisions(ids=[ID], dates=[2**63 - 1]), "INVALID_DATE", "columns[0].dates[0]"),
    (revisions(origins=[ID]), "INVALID_ID", "columns[0].ids"),
    (origins(ids=[ID]), "INVALID_URL", "columns[0].urls"),
    (origins(ids=[ID, OTHER], urls=["u", ""]), "INVALID_URL", "columns[0].urls[1]"),
    (origins(urls=["u"]), "INVALID_ID", "columns[0].ids"),
    (relations(CNT_IN_DIR, srcs=[ID], dsts=[b"x"], paths=[b""]), "INVALID_ID", "columns[0].dsts[0]"),
    (relations(CNT_IN_DIR, srcs=[ID], dsts=[ID, ID], paths=[b""]), "INVALID_ID", "columns[0].dsts"),
    (relations(CNT_IN_DIR, srcs=[ID + b"x"], dsts=[ID], paths=[b""]), "INVALID_ID", "columns[0].srcs[0]"),
    (relations(CNT_IN_DIR, srcs=[ID], dsts=[OTHER]), "INVALID_PATH", "columns[0].paths"),
    (relations(CNT_IN_DIR, srcs=[ID, ID], dsts=[ID, ID], paths=[b"", b"a\0b"]), "INVALID_PATH", "columns[0].paths[1]"),
    (relations(CNT_IN_DIR, srcs=[ID], dsts=[OTHER], paths=[b"x" * 4097]), "INVALID_PATH", "columns[0].paths[0]"),
    (relations(REV_IN_ORG, srcs=[ID], dsts=[OTHER], paths=[b""]), "INVALID_PATH", "columns[0].paths[0]"),
]


@pytest.mark.parametrize(("check", "reason", "field_path"), [*BAD, *BAD_COLUMNS])
def test_bad_values_are_refused_with_reason_and_field(
    check: Callable[[], object], reason: str, field_path: str
) -> None:
    with pytest.raises(CallError) as caught:
        check()
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert errors_pb2.ErrorReason.Name(caught.value.reason) == f"ERROR_REASON_{reason}"
    assert caught.value.field_path == field_path
    assert caught.value.message.startswith(f"{field_path}: ")
    assert caught.value.retry_delay_s is None
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("timestamp", "date"),
    [
        (Timestamp(), datetime(1970, 1, 1, tzinfo=UTC)),
        (Timestamp(nanos=999), datetime(1970, 1, 1, tzinfo=UTC)),
        (Timestamp(nanos=1_999), datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)),
        # Before 1970 too, what is below a microsecond is cut off towards the past.
        (Timestamp(seconds=-1, nanos=999_999_999), datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        (Timestamp(seconds=-1, nanos=1), datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (Timestamp(seconds=-62_135_596_800), datetime.min.replace(tzinfo=UTC)),
        (Timestamp(seconds=253_402_300_799, nanos=999_999_999), datetime.max.replace(tzinfo=UTC)),
    ],
)
def test_dates_are_floored_to_microseconds(timestamp: Timestamp, date: datetime) -> None:
    assert requests.microseconds_of(timestamp) == to_microseconds(date)


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_date_comes_back_as_it_was_sent(date: datetime) -> None:
    timestamp = Timestamp()
    set_date(timestamp, date)
    assert 0 <= timestamp.nanos < 10**9
    assert requests.microseconds_of(timestamp) == to_microseconds(date)


@given(
    st.integers(-62_135_596_800, 253_402_300_799) | st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 999_999_999) | st.integers(-(2**31), 2**31 - 1),
)
def test_any_timestamp_is_a_date_that_is_never_later_or_refused(seconds: int, nanos: int) -> None:
    timestamp = Timestamp(seconds=seconds, nanos=nanos)
    if -62_135_596_800 <= seconds <= 253_402_300_799 and 0 <= nanos < 10**9:
        microseconds = requests.microseconds_of(timestamp)
        assert to_date(microseconds).tzinfo is UTC
        assert 0 <= seconds * 10**9 + nanos - microseconds * 1000 < 1000
    else:
        with pytest.raises(InvalidValueError):
            requests.microseconds_of(timestamp)


def test_what_is_unset_is_none() -> None:
    noon = 43_200_000_000
    assert contents(GOOD, model_pb2.Content(id=ID, date=NOON))() == [(ID, None), (ID, noon)]
    # The first moment of 1970 is a date too.
    assert contents(model_pb2.Content(id=ID, date=Timestamp()))() == [(ID, 0)]
    assert directories(model_pb2.Directory(id=ID), model_pb2.Directory(id=ID, date=NOON))() == [(ID, None), (ID, noon)]
    assert revisions(
        model_pb2.Revision(id=ID),
        model_pb2.Revision(id=ID, date=NOON),
        model_pb2.Revision(id=ID, origin=OTHER),
        model_pb2.Revision(id=ID, date=NOON, origin=OTHER),
    )() == [(ID, None, None), (ID, noon, None), (ID, None, OTHER), (ID, noon, OTHER)]


@pytest.mark.parametrize("path", [b"", b".", b"x" * 4096, b"\xff\xfe/\x80", bytes(range(1, 256))])
def test_paths_are_taken_byte_for_byte(path: bytes) -> None:
    assert locations(path)() == [(path,)]
    assert relations(CNT_IN_DIR, model_pb2.Relation(src=ID, dst=OTHER, path=path))() == [(ID, OTHER, path)]


@pytest.mark.parametrize("url", ["u", "x" * 8192, "é" * 4096, "https://example.org/\U0001f600"])
def test_urls_are_taken_as_they_are(url: str) -> None:
    assert origins(model_pb2.Origin(id=ID, url=url))() == [(ID, url)]


@pytest.mark.parametrize("relation", [REV_IN_ORG, REV_BEFORE_REV])
def test_rows_of_revisions_have_no_path(relation: Any) -> None:
    assert relations(relation, model_pb2.Relation(src=ID, dst=OTHER))() == [(ID, OTHER)]


@pytest.mark.parametrize(
    "empty", [contents(), directories(), revisions(), origins(), locations(), relations(CNT_IN_DIR)]
)
def test_an_empty_message_is_no_entries(empty: Callable[[], object]) -> None:
    assert empty() == []


def test_every_enum_value_of_the_contract_is_known() -> None:
    relation_names = {name.removeprefix("RELATION_TYPE_") for name, _ in model_pb2.RelationType.items()}
    assert relation_names - {"UNSPECIFIED"} == {relation.name for relation in RelationType}
    for relation in RelationType:
        number = model_pb2.RelationType.Value(f"RELATION_TYPE_{relation.name}")
        assert requests.relation_type(number) is relation
        operation = requests.relation_operation(pb2.RelationAddRequest(relation=number))
        assert operation == Operation(WriteMethod.RELATION_ADD, relation)
    for entity in EntityType:
        assert requests.entity_type(model_pb2.EntityType.Value(f"ENTITY_TYPE_{entity.name}")) is entity


def test_a_read_asks_for_as_many_ids_as_it_may() -> None:
    assert len(requests.ids([ID] * 100_000)) == 100_000


def test_a_column_is_complete_or_empty() -> None:
    two = [ID, OTHER]
    assert contents(ids=two)() == [(ID, None), (OTHER, None)]
    assert contents(ids=two, dates=[MICROSECONDS_MIN, MICROSECONDS_MAX])() == [
        (ID, MICROSECONDS_MIN),
        (OTHER, MICROSECONDS_MAX),
    ]
    assert revisions(ids=two)() == [(ID, None, None), (OTHER, None, None)]
    assert revisions(ids=two, dates=[0, -1], origins=[OTHER, ID])() == [(ID, 0, OTHER), (OTHER, -1, ID)]
    assert origins(ids=two, urls=["a", "b"])() == [(ID, "a"), (OTHER, "b")]
    assert relations(CNT_IN_DIR, srcs=two, dsts=[ID, ID], paths=[b"", b"p"])() == [(ID, ID, b""), (OTHER, ID, b"p")]
    assert relations(REV_IN_ORG, srcs=two, dsts=[ID, ID])() == [(ID, ID), (OTHER, ID)]


def test_a_message_holds_entries_and_columns_in_their_order_and_duplicates_stay() -> None:
    request = pb2.ContentAddRequest(
        contents=[model_pb2.Content(id=OTHER)] * 2,
        columns=[model_pb2.DatedColumns(ids=[ID], dates=[5]), model_pb2.DatedColumns(ids=[OTHER, ID])],
    )
    assert requests.content_rows(request) == [(OTHER, None), (OTHER, None), (ID, 5), (OTHER, None), (ID, None)]
    request.columns.append(model_pb2.DatedColumns(ids=[b"x"]))
    with pytest.raises(CallError) as raised:
        requests.content_rows(request)
    assert raised.value.field_path == "columns[2].ids[0]"
