"""Packages and replies as bytes."""

from __future__ import annotations

import json
import struct
import tracemalloc
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provgate_broker.errors import MalformedPackageError
from provgate_broker.topology.policy import OPERATIONS, Operation, WriteMethod, parse_binding_key
from provgate_broker.wire.package import (
    Nack,
    claimed_row_count,
    decode_package,
    decode_reply,
    encode_reply,
    package_body,
)
from provgate_broker.wire.rows import encode_rows
from provgate_gateway.write.splitting import PACKAGE_MAX_BYTES
from provgate_storage.model import RelationType, RevisionData
from provgate_storage.rows.rows import Row
from tests.support.entries import DATED, Entry, decode_entries, encode_package, in_full, rows_of

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "wire_vectors.json").read_text())["vectors"]
CONTENT_ADD = Operation(WriteMethod.CONTENT_ADD)
LOCATION_ADD = Operation(WriteMethod.LOCATION_ADD)
ORIGIN_ADD = Operation(WriteMethod.ORIGIN_ADD)
REVISION_ADD = Operation(WriteMethod.REVISION_ADD)
CNT_IN_DIR = Operation(WriteMethod.RELATION_ADD, RelationType.CNT_IN_DIR)
REV_IN_ORG = Operation(WriteMethod.RELATION_ADD, RelationType.REV_IN_ORG)
ID = b"i" * 20
DATE = datetime(2020, 1, 2, 3, 4, 5, 678901, UTC)

ids = st.binary(min_size=20, max_size=20)
dates = st.datetimes(timezones=st.just(UTC))
paths = st.binary(max_size=4096).map(lambda path: path.replace(b"\0", b"/"))
urls = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=2000)


def entries_of(operation: Operation) -> st.SearchStrategy[Entry]:
    dated = st.tuples(ids) | st.tuples(ids, dates | st.none())
    if operation.relation is not None:
        return st.tuples(ids, ids, paths if operation.relation.has_path else st.none())
    return {
        WriteMethod.CONTENT_ADD: dated,
        WriteMethod.DIRECTORY_ADD: dated,
        WriteMethod.LOCATION_ADD: st.tuples(paths),
        WriteMethod.ORIGIN_ADD: st.tuples(ids, urls),
        WriteMethod.REVISION_ADD: st.tuples(ids)
        | st.tuples(ids, st.builds(RevisionData, dates | st.none(), ids | st.none())),
    }[operation.method]


packages = st.sampled_from(OPERATIONS).flatmap(
    lambda operation: st.tuples(st.just(operation), st.lists(entries_of(operation), max_size=20))
)


def rows_as_sent(body: bytes, operation: Operation) -> list[Row]:
    """Returns the rows of a body: the id alone where that was sent."""
    sent = msgpack.unpackb(body, timestamp=3, strict_map_key=False)["data"]
    rows = decode_package(body, operation)
    short = operation.relation is None and operation.method is not WriteMethod.LOCATION_ADD
    return [row[:1] if short and len(fields) == 1 else row for row, fields in zip(rows, sent, strict=True)]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["call"])
def test_captured_bodies_are_decoded_and_encoded_byte_for_byte(vector: dict[str, str]) -> None:
    body = bytes.fromhex(vector["body_hex"])
    operation, _ = parse_binding_key(vector["routing_key"])
    rows = rows_as_sent(body, operation)
    assert rows
    assert package_body(encode_rows(rows, operation)) == body
    assert claimed_row_count(body) == len(rows)


@given(packages)
def test_what_an_existing_deployment_encodes_is_decoded(package: tuple[Operation, list[Entry]]) -> None:
    operation, entries = package
    body = encode_package(entries)
    assert decode_entries(body, operation) == [in_full(entry, operation) for entry in entries]
    assert claimed_row_count(body) == len(entries)


@given(packages)
def test_rows_are_encoded_as_an_existing_deployment_does(package: tuple[Operation, list[Entry]]) -> None:
    operation, entries = package
    full = [in_full(entry, operation) for entry in entries]
    assert package_body(encode_rows(rows_of(entries, operation), operation)) == encode_package(full)
    if operation.method in DATED or operation.method is WriteMethod.REVISION_ADD:
        ids = [entry[:1] for entry in entries]
        assert package_body(encode_rows(ids, operation)) == encode_package(ids)


@pytest.mark.parametrize("seconds", [-1, 0, 1, 2**31, 2**32 - 1, 2**32, 2**34])
@pytest.mark.parametrize("microsecond", [0, 1, 999_999])
def test_dates_take_the_form_that_msgpack_gives_them(seconds: int, microsecond: int) -> None:
    row = (ID, seconds * 1_000_000 + microsecond)
    body = package_body(encode_rows([row, row], CONTENT_ADD))
    sent = msgpack.packb({"data": [(ID, msgpack.Timestamp(seconds, microsecond * 1000))] * 2})
    assert body == sent
    assert decode_package(body, CONTENT_ADD) == [row, row]


def test_an_empty_package_is_a_package() -> None:
    assert decode_package(encode_package([]), CONTENT_ADD) == []


@given(packages, st.sampled_from(OPERATIONS))
def test_a_package_in_a_queue_of_another_operation_is_entries_of_that_or_malformed(
    package: tuple[Operation, list[Entry]], other: Operation
) -> None:
    with suppress(MalformedPackageError):
        assert decode_entries(encode_package(package[1]), other) == [in_full(entry, other) for entry in package[1]]


@given(st.binary(max_size=200), st.sampled_from(OPERATIONS))
def test_any_bytes_are_entries_or_malformed(body: bytes, operation: Operation) -> None:
    for candidate in (body, b"\x81\xa4data" + body):
        assert claimed_row_count(candidate) >= 0
        try:
            rows = decode_package(candidate, operation)
        except MalformedPackageError:
            continue
        assert decode_package(package_body(encode_rows(rows, operation)), operation) == rows


@given(packages, st.data())
def test_a_damaged_package_is_a_package_or_malformed(
    package: tuple[Operation, list[Entry]], data: st.DataObject
) -> None:
    operation, entries = package
    body = bytearray(encode_package(entries))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with suppress(MalformedPackageError):
        assert len(decode_package(bytes(body), operation)) == claimed_row_count(bytes(body))


json_like: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary(max_size=30)
    | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.binary(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(json_like, st.sampled_from(OPERATIONS))
def test_any_value_is_entries_or_malformed(value: object, operation: Operation) -> None:
    for whole in (value, {"data": value}, {"data": [value]}):
        with suppress(MalformedPackageError):
            decode_package(msgpack.packb(whole), operation)


ROW = b"\x92\xc4\x14" + ID
HOSTILE = {
    "empty": b"",
    "no msgpack": b"\xc1",
    "a text": msgpack.packb("data"),
    "two keys": b"\x82\xa4data\x90\xa4more\x90",
    "another key": b"\x81\xa4date\x90",
    "no list": b"\x81\xa4data\xa0",
    "claims 2**32-1 rows": b"\x81\xa4data\xdd\xff\xff\xff\xff",
    "claims a map of 2**32-1": b"\xdf\xff\xff\xff\xff",
    "a row claims 2**32-1 fields": b"\x81\xa4data\x91\xdd\xff\xff\xff\xff",
    "a path claims 2**32-1 bytes": b"\x81\xa4data\x91\x91\xc6\xff\xff\xff\xff",
    "an extension claims 2**32-1 bytes": b"\x81\xa4data\x91" + ROW + b"\xc9\xff\xff\xff\xff\xff",
    "nests 100,000 deep": b"\x81\xa4data" + b"\x91" * 100_000,
    "nests 100,000 maps deep": b"\x81\xa4data" + b"\x81" * 100_000,
    "extra bytes": encode_package([(ID,)]) + b"\x00",
    "an extra row": encode_package([(ID,)]) + b"\x91\xc4\x14" + ID,
    "a row less": b"\x81\xa4data\x92\x91\xc4\x14" + ID,
    "cut": encode_package([(ID, DATE)])[:-1],
    "an unknown extension": b"\x81\xa4data\x91" + ROW + b"\xd4\x05\x00",
    "a huge timestamp": b"\x81\xa4data\x91" + ROW + b"\xc7\x0c\xff" + struct.pack(">Iq", 0, 2**62),
    "a timestamp before the year 1": b"\x81\xa4data\x91" + ROW + b"\xc7\x0c\xff" + struct.pack(">Iq", 0, -(2**40)),
    "a timestamp of 5 bytes": b"\x81\xa4data\x91" + ROW + b"\xc7\x05\xff" + b"\x00" * 5,
    "nanoseconds out of range": b"\x81\xa4data\x91" + ROW + b"\xc7\x0c\xff" + struct.pack(">Iq", 2 * 10**9, 0),
    "a date as text": msgpack.packb({"data": [[ID, "yesterday"]]}),
    "a date as number": msgpack.packb({"data": [[ID, 1577836800]]}),
    "an id as text": msgpack.packb({"data": [[ID.decode()]]}),
    "an id of 19 bytes": msgpack.packb({"data": [[ID[1:]]]}),
    "an id in hex": msgpack.packb({"data": [[ID.hex().encode()]]}),
    "a row of nothing": b"\x81\xa4data\x91\x90",
    "a row of three": msgpack.packb({"data": [[ID, None, None]]}),
    "a row that is no list": msgpack.packb({"data": [ID]}),
}


def peak_bytes_of_malformed(body: bytes, operation: Operation) -> int:
    """Returns the memory that it takes to find out that a body is malformed. The error does not quote the body."""
    tracemalloc.start()
    try:
        with pytest.raises(MalformedPackageError) as raised:
            decode_package(body, operation)
        assert claimed_row_count(body) <= len(body)
        assert ID.decode() not in str(raised.value)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_body_is_malformed_and_costs_no_memory(body: bytes) -> None:
    assert peak_bytes_of_malformed(body, CONTENT_ADD) < 1024 * 1024


TINY_ROW = b"\x91\xc4\x00"


@pytest.mark.parametrize(("claimed_count", "held_count"), [(2_700_000, 2_700_000), (1, 2_700_000), (400_001, 1)])
def test_rows_are_counted_before_they_are_built(claimed_count: int, held_count: int) -> None:
    body = b"\x81\xa4data\xdd" + struct.pack(">I", claimed_count) + TINY_ROW * held_count
    peak_bytes = peak_bytes_of_malformed(body, LOCATION_ADD)
    assert peak_bytes < 1.5 * len(body) + 1024 * 1024, f"{peak_bytes / 2**20:.0f} MiB for {len(body) / 2**20:.1f} MiB"


def test_a_gateway_s_largest_package_is_not_refused() -> None:
    count = PACKAGE_MAX_BYTES // len(TINY_ROW)
    body = package_body([TINY_ROW] * count)
    assert decode_package(body, LOCATION_ADD) == [(b"",)] * count


@pytest.mark.parametrize(
    ("operation", "row"),
    [
        (LOCATION_ADD, [b"a\0b"]),
        (LOCATION_ADD, [b"p" * 4097]),
        (LOCATION_ADD, ["text"]),
        (LOCATION_ADD, [None]),
        (ORIGIN_ADD, [ID]),
        (ORIGIN_ADD, [ID, b"https://example.org"]),
        (ORIGIN_ADD, [ID, ""]),
        (ORIGIN_ADD, [ID, "a\0b"]),
        (ORIGIN_ADD, [ID, "u" * 8193]),
        (CNT_IN_DIR, [ID, ID]),
        (CNT_IN_DIR, [ID, ID, None]),
        (CNT_IN_DIR, [ID, ID[1:], b"path"]),
        (REV_IN_ORG, [ID, ID, b"path"]),
        (REVISION_ADD, [ID, None]),
        (REVISION_ADD, [ID, DATE]),
        (REVISION_ADD, [ID, {}]),
        (REVISION_ADD, [ID, {b"swhtype": "dataclass", b"d": {"date": None, "origin": None}}]),
        (REVISION_ADD, [ID, {b"swhtype": "model", b"d": {"date": None, "origin": None, "__type__": "RevisionData"}}]),
        (REVISION_ADD, [ID, {b"swhtype": "dataclass", b"d": {"date": None, "origin": None, "__type__": "os.system"}}]),
        (REVISION_ADD, [ID, {b"swhtype": "dataclass", b"d": {"date": 1, "origin": None, "__type__": "RevisionData"}}]),
        (
            REVISION_ADD,
            [ID, {b"swhtype": "dataclass", b"d": {"date": None, "origin": b"", "__type__": "RevisionData"}}],
        ),
        (REVISION_ADD, [ID, {b"swhtype": "dataclass", "swhtype": "dataclass", b"d": {}}]),
        (REVISION_ADD, [ID, {b"\xff": 1, b"d": {}}]),
    ],
    ids=str,
)
def test_a_row_that_is_not_of_its_operation_is_malformed(operation: Operation, row: list[Any]) -> None:
    with pytest.raises(MalformedPackageError):
        decode_package(msgpack.packb({"data": [row]}, datetime=True), operation)


@pytest.mark.parametrize("tag", ["swhtype", b"swhtype"])
@pytest.mark.parametrize("field", ["date", b"date"])
def test_keys_may_be_text_or_bytes(tag: Any, field: Any) -> None:
    data = {tag: "dataclass", "d": {field: DATE, "origin": ID, "__type__": "RevisionData"}}
    body = msgpack.packb({"data": [[ID, data]]}, datetime=True)
    assert decode_entries(body, REVISION_ADD) == [(ID, RevisionData(DATE, ID))]


@pytest.mark.parametrize(
    "date",
    [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
        datetime(1969, 12, 31, 23, 59, 59, 1, UTC),
        datetime(2020, 1, 1, 12, tzinfo=timezone(timedelta(hours=2))),
    ],
    ids=str,
)
def test_dates_at_the_limits_and_before_1970_survive(date: datetime) -> None:
    assert decode_entries(encode_package([(ID, date)]), CONTENT_ADD) == [(ID, date)]


@given(st.integers(0, 2**63) | st.builds(Nack, st.text(max_size=20), st.text(max_size=500), st.integers(0, 2**32)))
def test_replies_survive(reply: int | Nack) -> None:
    assert decode_reply(encode_reply(reply)) == reply


@pytest.mark.parametrize(("reply", "body"), [(1, b"\x01"), (50, b"\x32"), (100, b"\x64")])
def test_replies_are_those_of_existing_deployments(reply: int, body: bytes) -> None:
    assert encode_reply(reply) == body
    assert decode_reply(body) == reply


@given(st.binary(max_size=100) | json_like.map(msgpack.packb))
def test_any_bytes_are_a_reply_or_malformed(body: bytes) -> None:
    with suppress(MalformedPackageError):
        reply = decode_reply(body)
        assert isinstance(reply, Nack) or reply >= 0


@pytest.mark.parametrize("value", [-1, True, None, "1", {}, {"error": "e", "message": "m"}, [1]], ids=str)
def test_what_is_no_reply_is_malformed(value: object) -> None:
    with pytest.raises(MalformedPackageError):
        decode_reply(msgpack.packb(value))
