"""Splitting messages into packages: entries are counted before decoding, rows are split by range."""

from __future__ import annotations

import dataclasses
import hashlib
import typing
from datetime import UTC
from typing import Any

import msgspec
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from provgate.v1 import errors_pb2, model_pb2
from provgate.v1 import provenance_storage_pb2 as pb2
from provgate_broker.topology.policy import (
    RANGE_COUNTS,
    Exchange,
    Operation,
    RangePolicy,
    WriteMethod,
    exchange_of,
    parse_binding_key,
)
from provgate_client.settings import GrpcSettings
from provgate_gateway.errors import CallError
from provgate_gateway.rpc import requests
from provgate_gateway.rpc.entry_count import entry_count
from provgate_gateway.write.splitting import ENTRIES_MAX, PACKAGE_MAX_BYTES, Package, Splitter, split
from provgate_storage.model import RelationType, RevisionData
from tests.support.async_tests import on_loop
from tests.support.entries import Entry, decode_entries, in_full, rows_of

IDS = st.binary(min_size=20, max_size=20)
DATES = st.datetimes(timezones=st.just(UTC))
PATHS = st.binary(max_size=40).filter(lambda path: b"\0" not in path)

_DATED = st.one_of(st.tuples(IDS), st.tuples(IDS, DATES))
_REVISIONS = st.one_of(st.tuples(IDS), st.tuples(IDS, st.builds(RevisionData, st.none() | DATES, st.none() | IDS)))


def _relation_rows(relation: RelationType) -> st.SearchStrategy[Entry]:
    return st.tuples(IDS, IDS, PATHS if relation.has_path else st.none())


ENTRIES: dict[Operation, st.SearchStrategy[Entry]] = {
    Operation(WriteMethod.CONTENT_ADD): _DATED,
    Operation(WriteMethod.DIRECTORY_ADD): _DATED,
    Operation(WriteMethod.REVISION_ADD): _REVISIONS,
    Operation(WriteMethod.ORIGIN_ADD): st.tuples(IDS, st.text("abc:/é", min_size=1)),
    Operation(WriteMethod.LOCATION_ADD): st.tuples(PATHS),
    **{Operation(WriteMethod.RELATION_ADD, relation): _relation_rows(relation) for relation in RelationType},
}


@st.composite
def cases(draw: Any) -> tuple[Operation, list[Entry], RangePolicy]:
    operation = draw(st.sampled_from(list(ENTRIES)))
    counts = draw(st.fixed_dictionaries({exchange: st.sampled_from(RANGE_COUNTS) for exchange in Exchange}))
    return operation, draw(st.lists(ENTRIES[operation], max_size=60)), RangePolicy(counts)


def _id_of(operation: Operation, entry: Entry) -> bytes:
    if operation.method is WriteMethod.LOCATION_ADD:
        return hashlib.sha1(entry[0]).digest()
    return bytes(entry[0])


@settings(max_examples=200, deadline=None)
@given(cases(), st.integers(1, 9))
def test_packages_are_the_entries_by_range_and_in_order(
    case: tuple[Operation, list[Entry], RangePolicy], batch_size: int
) -> None:
    operation, entries, policy = case
    count = policy.counts[exchange_of(operation)]
    expected: dict[int, list[Entry]] = {}
    for entry in entries:
        expected.setdefault(_id_of(operation, entry)[0] * count // 256, []).append(entry)

    found: dict[int, list[Entry]] = {}
    for package in split(operation, rows_of(entries, operation), policy, batch_size):
        decoded = decode_entries(package.body, operation)
        assert 1 <= len(decoded) == package.entry_count <= batch_size
        assert package.exchange is exchange_of(operation)
        key_operation, range_number = parse_binding_key(package.routing_key)
        assert key_operation == operation
        found.setdefault(range_number, []).extend(decoded)
    assert found == {number: [in_full(entry, operation) for entry in of_range] for number, of_range in expected.items()}


@given(st.lists(IDS, max_size=100), st.integers(1, 7))
def test_no_package_is_cut_before_it_is_full(ids: list[bytes], batch_size: int) -> None:
    policy = RangePolicy(dict.fromkeys(Exchange, 1))
    packages = split(Operation(WriteMethod.CONTENT_ADD), [(id, None) for id in ids], policy, batch_size)
    assert len(packages) == -(-len(ids) // batch_size)


def _locations(path_bytes: int, count: int) -> list[Package]:
    entries = [(index.to_bytes(4, "big").replace(b"\0", b"z").ljust(path_bytes, b"x"),) for index in range(count)]
    return split(
        Operation(WriteMethod.LOCATION_ADD), entries, RangePolicy(dict.fromkeys(Exchange, 1)), batch_size=10**9
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(1000, 4096))
def test_a_package_is_at_most_a_mebibyte_and_nearly_fills_it(path_bytes: int) -> None:
    packages = _locations(path_bytes, 3 * PACKAGE_MAX_BYTES // path_bytes)
    assert sum(package.entry_count for package in packages) == 3 * PACKAGE_MAX_BYTES // path_bytes
    assert all(len(package.body) <= PACKAGE_MAX_BYTES for package in packages)
    assert all(len(package.body) > PACKAGE_MAX_BYTES - 5000 for package in packages[:-1])


@pytest.mark.parametrize(
    ("path", "first_hex_digit"), [(b"", "d"), (b"README", "6"), (b"\xff\xfe", "d"), (b"src/main.c", "3")]
)
def test_a_location_goes_by_the_sha1_of_its_path(path: bytes, first_hex_digit: str) -> None:
    (package,) = split(Operation(WriteMethod.LOCATION_ADD), [(path,)], RangePolicy(), 100)
    assert package.routing_key == f"location_add.unknown.{first_hex_digit}"


@pytest.mark.parametrize("relation", list(RelationType))
def test_a_row_of_a_relation_goes_by_its_source(relation: RelationType) -> None:
    row = (b"\xa7" * 20, b"\x11" * 20, b"p")[: 2 + relation.has_path]
    (package,) = split(Operation(WriteMethod.RELATION_ADD, relation), [row], RangePolicy(), 100)
    assert package.exchange.value == relation.source.value
    assert package.routing_key == f"relation_add.{relation.value}.a"


def test_nothing_is_no_package() -> None:
    assert split(Operation(WriteMethod.CONTENT_ADD), [], RangePolicy(), 100) == []


def test_an_entry_is_encoded_as_existing_deployments_do() -> None:
    (package,) = split(Operation(WriteMethod.CONTENT_ADD), [(b"\x01" * 20, 0)], RangePolicy(), 100)
    assert package.body == b"\x81\xa4data\x91\x92\xc4\x14" + b"\x01" * 20 + b"\xd6\xff\0\0\0\0"


MOST = 1000
COLUMNS = pb2.RelationAddRequest.COLUMNS_FIELD_NUMBER
LENGTHS = st.sampled_from([0, 0, 1, 20, 20, 127, 128, 300, 20_000])
VALUES = st.lists(LENGTHS.map(bytes), max_size=20)


@given(st.lists(st.tuples(VALUES, VALUES, VALUES), max_size=5), st.lists(VALUES, max_size=5))
def test_as_many_are_counted_as_are_decoded(columns: list[tuple[list[bytes], ...]], rows: list[list[bytes]]) -> None:
    request = pb2.RelationAddRequest(
        relation=model_pb2.RELATION_TYPE_CNT_IN_DIR,
        relations=[model_pb2.Relation(src=b"".join(row)) for row in rows],
        columns=[model_pb2.RelationColumns(srcs=srcs, dsts=dsts, paths=paths) for srcs, dsts, paths in columns],
    )
    expected = len(rows) + sum(max(1, *map(len, block)) for block in columns)
    assert entry_count(request.SerializeToString(), COLUMNS, MOST) == expected


@given(st.binary(max_size=200))
def test_any_bytes_are_counted_and_no_fewer_than_are_decoded(body: bytes) -> None:
    count = entry_count(body, COLUMNS, MOST)
    try:
        request = pb2.RelationAddRequest.FromString(body)
    except DecodeError:
        return
    assert count >= len(request.relations) + sum(max(1, len(block.srcs)) for block in request.columns)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (requests.LOCATION_ADD, b"\x0a\x00" * 2_000_000),
        (requests.CONTENT_ADD, b"\x0a\x00" * 2_000_000),
        (requests.CONTENT_ADD, b"\x12\x00" * 2_000_000),
        (requests.CONTENT_ADD, b"\x12\x04\x0a\x00\x0a\x00" * 150_000),
        (
            requests.CONTENT_ADD,
            pb2.ContentAddRequest(columns=[model_pb2.DatedColumns(ids=[b""] * 200_001)]).SerializeToString(),
        ),
        (requests.RELATION_ADD, b"\x08\x01" + b"\x12\x00" * 2_000_000),
    ],
)
@on_loop
async def test_a_message_of_too_many_entries_is_refused_before_it_is_decoded(
    kind: requests.MessageKind[Any], body: bytes
) -> None:
    def decode(_: bytes) -> typing.Never:
        raise AssertionError("it is decoded")

    splitter = Splitter(RangePolicy(), 5000)
    with pytest.raises(CallError) as raised:
        await splitter.packages(body, dataclasses.replace(kind, decode=decode))
    splitter.close()
    assert raised.value.reason == errors_pb2.ERROR_REASON_TOO_MANY_ENTRIES
    assert str(ENTRIES_MAX) in raised.value.message


def test_the_adapter_cuts_smaller_messages() -> None:
    hints = typing.get_type_hints(GrpcSettings, include_extras=True)
    (limits,) = (each for each in hints["message_entries"].__metadata__ if isinstance(each, msgspec.Meta))
    assert limits.le is not None
    assert limits.le <= ENTRIES_MAX
