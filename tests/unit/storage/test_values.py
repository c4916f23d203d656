"""Dates as microseconds."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provgate_storage.errors import InvalidValueError
from provgate_storage.rows.values import (
    MICROSECONDS_MAX,
    MICROSECONDS_MIN,
    check_microseconds,
    to_date,
    to_microseconds,
)
from tests.support.examples import EARLIEST_DATE, LATEST_DATE

DATES = st.datetimes(timezones=st.just(UTC))


@given(DATES)
@example(EARLIEST_DATE)
@example(LATEST_DATE)
@example(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC))
def test_dates_keep_their_microseconds(date: datetime) -> None:
    found = to_date(check_microseconds(to_microseconds(date)))
    assert found == date
    assert found.tzinfo is UTC


@given(DATES, DATES)
def test_the_earlier_date_is_the_smaller_number(one: datetime, other: datetime) -> None:
    assert (to_microseconds(one) < to_microseconds(other)) is (one < other)


def test_microseconds_count_from_1970_and_end_with_the_years_of_four_digits() -> None:
    assert to_microseconds(datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC)) == 1_000_005
    assert (to_date(MICROSECONDS_MIN), to_date(MICROSECONDS_MAX)) == (EARLIEST_DATE, LATEST_DATE)
    for outside in (MICROSECONDS_MIN - 1, MICROSECONDS_MAX + 1, 2**63 - 1, -(2**63)):
        with pytest.raises(InvalidValueError):
            check_microseconds(outside)
