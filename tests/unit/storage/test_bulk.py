"""Checks of many values say what checks of each would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provgate_storage.errors import InvalidValueError
from provgate_storage.rows.bulk import (
    are_ids,
    are_microseconds,
    are_paths,
    are_urls,
    are_utc_dates,
    check_each,
    first_invalid,
    microseconds_of,
)
from provgate_storage.rows.values import MICROSECONDS_MAX, MICROSECONDS_MIN, check_date, check_id, check_path, check_url

ODD = st.none() | st.integers() | st.text(max_size=3) | st.binary(max_size=3) | st.lists(st.integers(), max_size=2)
ANYTHING: dict[str, tuple[Callable[[Sequence[Any]], bool], Callable[[Any], object], st.SearchStrategy[Any]]] = {
    "ids": (are_ids, check_id, st.binary(min_size=19, max_size=21) | ODD),
    "urls": (
        are_urls,
        check_url,
        st.text(st.characters(), max_size=3)
        | st.sampled_from(["x" * 2048, "x" * 8192, "x" * 8193, "é" * 4097, "a\0"])
        | ODD,
    ),
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


def test_valid_values_are_seen_at_once() -> None:
    assert are_ids([])
    assert are_ids([b"i" * 20] * 3)
    assert are_paths([])
    assert are_paths([b"", b"a/b", b"\xff" * 4096])
    assert are_urls([])
    assert are_urls(["u", "é" * 2048, "\U0001f600"])
    assert are_utc_dates([])
    assert are_utc_dates([datetime(2020, 1, 1, tzinfo=UTC)])
    assert are_microseconds([])
    assert are_microseconds([MICROSECONDS_MIN, 0, MICROSECONDS_MAX])
    assert not are_microseconds([0, MICROSECONDS_MAX + 1])
    assert not are_microseconds([MICROSECONDS_MIN - 1, 0])


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
    assert microseconds_of([date, date]) == [0, 0]


def test_the_first_value_at_fault_is_told_by_its_place() -> None:
    found = first_invalid(check_id, [b"i" * 20, b"short", b""])
    assert found is not None
    assert found[0] == 1
    assert "not 5" in str(found[1])
