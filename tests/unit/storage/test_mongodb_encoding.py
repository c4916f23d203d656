"""Values as documents hold them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st

from provgate_storage.mongodb.encoding import decoded_date, encoded_date, location_key, relation_key
from tests.contract.examples import EARLIEST_DATE, LATEST_DATE, ODD_PATHS, entry_id


@given(date=st.datetimes(timezones=st.just(UTC)))
@example(date=EARLIEST_DATE)
@example(date=LATEST_DATE)
@example(date=datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC))
def test_dates_keep_their_microseconds(date: datetime) -> None:
    assert decoded_date(encoded_date(date)) == date


@given(dates=st.tuples(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC))))
def test_the_earlier_date_is_the_smaller_number(dates: tuple[datetime, datetime]) -> None:
    one, other = dates
    assert (encoded_date(one) < encoded_date(other)) is (one < other)


def test_keys_are_of_one_length_and_differ() -> None:
    locations = {location_key(path) for path in ODD_PATHS}
    rows = {relation_key(entry_id(1), entry_id(2), path) for path in ODD_PATHS}
    assert {len(key) for key in locations} == {52}
    assert {len(key) for key in rows} == {72}
    assert len(locations) == len(rows) == len(ODD_PATHS)
    assert relation_key(entry_id(1), entry_id(2)) == entry_id(1) + entry_id(2)


def test_a_location_is_in_the_range_of_its_id() -> None:
    for path in ODD_PATHS:
        assert location_key(path).startswith(hashlib.sha1(path).digest())
