"""Entries are counted before a message is decoded."""

from __future__ import annotations

import typing

import msgspec
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from provgate.v1 import errors_pb2, model_pb2
from provgate.v1 import provenance_storage_pb2 as pb2
from provgate_broker.topology.policy import RangePolicy
from provgate_client.settings import GrpcSettings
from provgate_gateway.errors import CallError
from provgate_gateway.rpc import requests
from provgate_gateway.rpc.requests import entry_count
from provgate_gateway.write.intake import ENTRIES_MAX, Intake

MOST = 1000
COLUMNS = pb2.RelationAddRequest.COLUMNS_FIELD_NUMBER
LENGTHS = st.sampled_from([0, 0, 1, 20, 20, 127, 128, 300, 20_000])
VALUES = st.lists(LENGTHS.map(bytes), max_size=20)


@given(st.lists(st.tuples(VALUES, VALUES, VALUES), max_size=5), st.lists(VALUES, max_size=5))
def test_as_many_as_are_decoded(columns: list[tuple[list[bytes], ...]], rows: list[list[bytes]]) -> None:
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
def test_a_message_of_too_many_entries_is_refused_before_it_is_decoded(
    kind: requests.MessageKind[typing.Any], body: bytes
) -> None:
    def decode(_: bytes) -> typing.Never:
        raise AssertionError("it is decoded")

    counted = requests.MessageKind(decode, kind.operation, kind.rows, kind.columns_field)
    with pytest.raises(CallError) as raised:
        Intake(RangePolicy(), 5000)._packages(body, counted)
    assert raised.value.reason == errors_pb2.ERROR_REASON_TOO_MANY_ENTRIES
    assert str(ENTRIES_MAX) in raised.value.message


def test_the_adapter_cuts_smaller_messages() -> None:
    hints = typing.get_type_hints(GrpcSettings, include_extras=True)
    (limits,) = (each for each in hints["message_entries"].__metadata__ if isinstance(each, msgspec.Meta))
    assert limits.le is not None
    assert limits.le <= ENTRIES_MAX
