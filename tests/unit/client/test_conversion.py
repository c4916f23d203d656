from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from provgate.v1 import model_pb2
from provgate_broker.topology.policy import Operation, WriteMethod
from provgate_client.adapter import conversion
from provgate_gateway.rpc import requests
from provgate_storage.model import RelationData, RelationType, RevisionData
from tests.support.entries import rows_of

IDS = st.binary(min_size=20, max_size=20)
DATES = st.datetimes(timezones=st.just(UTC))
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@given(st.integers(-(2**35), 2**37), st.integers(0, 999_999_999))
def test_nanoseconds_are_floored(seconds: int, nanos: int) -> None:
    found = conversion.to_date(Timestamp(seconds=seconds, nanos=nanos))
    assert (found - EPOCH) // timedelta(microseconds=1) == seconds * 1_000_000 + nanos // 1000


def test_the_ends_of_time() -> None:
    for date in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        timestamp = Timestamp()
        timestamp.FromDatetime(date)
        assert conversion.to_date(timestamp) == date


def test_entries_with_the_same_fields_share_columns() -> None:
    entries = [(bytes([number]) * 20, EPOCH) for number in range(100)]
    (block,) = conversion.directory_add_request(entries).columns
    assert list(block.ids) == [entry_id for entry_id, _ in entries]
    assert list(block.dates) == [0] * 100


@given(st.lists(st.tuples(IDS, st.none() | DATES)))
def test_dated_entries_arrive_as_they_were_in_their_order(entries: list[tuple[bytes, datetime | None]]) -> None:
    expected = rows_of(entries, Operation(WriteMethod.CONTENT_ADD))
    assert requests.content_rows(conversion.content_add_request(entries)) == expected
    assert requests.directory_rows(conversion.directory_add_request(entries)) == expected


@given(st.lists(st.tuples(IDS, st.builds(RevisionData, st.none() | DATES, st.none() | IDS))))
def test_revisions_arrive_as_they_were_in_their_order(entries: list[tuple[bytes, RevisionData]]) -> None:
    expected = rows_of(entries, Operation(WriteMethod.REVISION_ADD))
    assert requests.revision_rows(conversion.revision_add_request(entries)) == expected


@given(st.lists(st.tuples(IDS, st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1)), min_size=1))
def test_origins_arrive_as_they_were(entries: list[tuple[bytes, str]]) -> None:
    assert requests.origin_rows(conversion.origin_add_request(entries)) == entries


@pytest.mark.parametrize("relation", list(RelationType))
def test_relations_arrive_as_they_were(relation: RelationType) -> None:
    path = b"a\xff" if relation.has_path else None
    entries = [(bytes([number]) * 20, RelationData(b"d" * 20, path)) for number in range(3)]
    rows = requests.relation_rows(conversion.relation_add_request(relation, entries))
    assert rows == [(src, b"d" * 20, path)[: 2 + relation.has_path] for src, _ in entries]


def test_every_enum_value_has_its_number() -> None:
    assert sorted(conversion.RELATIONS.values()) == [each for each in model_pb2.RelationType.values() if each]
    assert sorted(conversion.ENTITIES.values()) == [each for each in model_pb2.EntityType.values() if each]
