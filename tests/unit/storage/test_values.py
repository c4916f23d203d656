"""Checks of one value and of many, and dates as microseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provgate_storage.errors import InvalidValueError
from provgate_storage.model import RelationType
from provgate_storage.rows.values import (
    MICROSECONDS_MAX,
    MICROSECONDS_MIN,
    are_ids,
    are_microseconds,
    are_paths,
    are_urls,
    are_utc_dates,
    check_date,
    check_each,
    check_id,
    check_microseconds,
    check_path,
    check_relation_path,
    check_relation_paths,
    check_url,
    first_invalid,
    microseconds_of,
    to_date,
    to_microseconds,
)
from tests.support.examples import EARLIEST_DATE, LATEST_DATE

DATES = st.datetimes(timezones=st.just(UTC))
ODD = st.none() | st.integers() | st.text(max_size=3) | st.binary(max_size=3) | st.lists(st.integers(), max_size=2)
LONG_URLS = st.sampled_from(["x" * 2048, "x" * 8192, "x" * 8193, "é" * 4097, "a\0"])
ANYTHING: dict[str, tuple[Callable[[Sequence[Any]], bool], Callable[[Any], object], st.SearchStrategy[Any]]] = {
    "ids": (are_ids, check_id, st.binary(min_size=19, max_size=21) | ODD),
    "urls": (are_urls, check_url, st.text(st.characters(), max_size=3) | LONG_URLS | ODD),
    "paths": (are_paths, check_path, st.binary(max_size=3) | st.sampled_from([b"x" * 4096, b"x" * 4097]) | ODD),
    "dates": (
        are_utc_dates,
        check_date,
        st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=1))])) | st.datetimes() | ODD,
    ),
}


@pytest.mark.parametrize(("are_valid", "check", "values"), ANYTHING.values(), ids=ANYTHING.keys())
def test_many_values_are_refused_exactly_where_one_is(
    are_valid: Callable[[Sequence[Any]], bool], check: Callable[[Any], object], values: st.SearchStrategy[Any]
) -> None:
    @given(st.lists(values, max_size=4))
    def compare(drawn: list[Any]) -> None:
        found = first_invalid(check, drawn)
        if found is None:
            check_each(are_valid, check, drawn)
            return
        assert not are_valid(drawn)
        with pytest.raises(InvalidValueError):
            check_each(are_valid, check, drawn)
        with pytest.raises(InvalidValueError):
            check(drawn[found[0]])

    compare()


@pytest.mark.parametrize(
    ("are_valid", "values"),
    [
        (are_ids, [b"i" * 20] * 3),
        (are_paths, [b"", b"a/b", b"\xff" * 4096]),
        (are_urls, ["u", "é" * 2048, "\U0001f600"]),
        (are_utc_dates, [datetime(2020, 1, 1, tzinfo=UTC)]),
        (are_microseconds, [MICROSECONDS_MIN, 0, MICROSECONDS_MAX]),
    ],
)
def test_valid_values_need_no_check_of_each(are_valid: Callable[[Any], bool], values: list[Any]) -> None:
    assert are_valid([])
    assert are_valid(values)


@pytest.mark.parametrize("relation", RelationType)
def test_paths_of_a_relation_are_refused_exactly_where_one_is(relation: RelationType) -> None:
    @given(st.lists(st.none() | st.binary(max_size=3) | ODD, max_size=4))
    def compare(drawn: list[Any]) -> None:
        if first_invalid(partial(check_relation_path, relation), drawn) is None:
            check_relation_paths(relation, drawn)
        else:
            with pytest.raises(InvalidValueError):
                check_relation_paths(relation, drawn)

    compare()


def test_the_first_invalid_value_is_found() -> None:
    found = first_invalid(check_id, [b"i" * 20, b"short", b""])
    assert found is not None
    assert found[0] == 1
    assert "not 5" in str(found[1])


class Unhashable(tzinfo):
    """As the zones of dateutil are."""

    __hash__ = None  # type: ignore[assignment]

    def utcoffset(self, _date: datetime | None) -> timedelta:
        return timedelta(hours=1)

    def dst(self, _date: datetime | None) -> timedelta:
        return timedelta()

    def tzname(self, _date: datetime | None) -> str:
        return "odd"


def test_a_zone_need_not_be_hashable() -> None:
    date = datetime(1970, 1, 1, 1, tzinfo=Unhashable())
    assert not are_utc_dates([date])
    assert microseconds_of([date, None, date]) == [0, None, 0]


@given(DATES, DATES)
@example(EARLIEST_DATE, LATEST_DATE)
@example(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC))
def test_dates_keep_their_microseconds_and_their_order(one: datetime, other: datetime) -> None:
    found = to_date(check_microseconds(to_microseconds(one)))
    assert found == one
    assert found.tzinfo is UTC
    assert (to_microseconds(one) < to_microseconds(other)) is (one < other)


def test_microseconds_count_from_1970_and_end_with_the_years_of_four_digits() -> None:
    assert to_microseconds(datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC)) == 1_000_005
    assert (to_date(MICROSECONDS_MIN), to_date(MICROSECONDS_MAX)) == (EARLIEST_DATE, LATEST_DATE)
    for outside in (MICROSECONDS_MIN - 1, MICROSECONDS_MAX + 1, 2**63 - 1, -(2**63)):
        assert not are_microseconds([0, outside])
        with pytest.raises(InvalidValueError):
            check_microseconds(outside)
