from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from provgate.v1 import model_pb2
from provgate_client.adapter import conversion
from provgate_storage.model import RevisionData

IDS = st.binary(min_size=20, max_size=20)
DATES = st.datetimes(timezones=st.just(UTC))
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@given(DATES)
def test_dates_are_exact(date: datetime) -> None:
    timestamp = Timestamp()
    conversion.set_date(timestamp, date)
    assert timestamp.ToDatetime(UTC) == date
    found = conversion.to_date(timestamp)
    assert found == date
    assert found.tzinfo is UTC


@given(st.integers(-(2**35), 2**37), st.integers(0, 999_999_999))
def test_nanoseconds_are_floored(seconds: int, nanos: int) -> None:
    found = conversion.to_date(Timestamp(seconds=seconds, nanos=nanos))
    assert (found - EPOCH) // timedelta(microseconds=1) == seconds * 1_000_000 + nanos // 1000


def test_the_ends_of_time() -> None:
    for date in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        timestamp = Timestamp()
        conversion.set_date(timestamp, date)
        assert conversion.to_date(timestamp) == date


def test_another_zone_is_the_same_instant() -> None:
    timestamp = Timestamp()
    conversion.set_date(timestamp, datetime(1969, 12, 31, 23, tzinfo=timezone(timedelta(hours=-1))))
    assert (timestamp.seconds, timestamp.nanos) == (0, 0)


def test_the_epoch_is_a_date() -> None:
    # Its fields have the values of unset ones; the message must be there all the same.
    request = conversion.content_add_request([(bytes(20), EPOCH), (bytes(20), None)])
    parsed = type(request).FromString(request.SerializeToString())
    assert [each.HasField("date") for each in parsed.contents] == [True, False]


@given(st.lists(st.tuples(IDS, st.builds(RevisionData, st.none() | DATES, st.none() | IDS))))
def test_revisions(entries: list[tuple[bytes, RevisionData]]) -> None:
    assert list(conversion.to_revisions(conversion.revision_add_request(entries).revisions)) == entries


def test_every_enum_value_has_its_number() -> None:
    assert sorted(conversion.RELATIONS.values()) == [each for each in model_pb2.RelationType.values() if each]
    assert sorted(conversion.ENTITIES.values()) == [each for each in model_pb2.EntityType.values() if each]
