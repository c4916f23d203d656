"""Contents and directories in responses, an entry each or in columns."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from provgate_client.adapter import conversion
from provgate_gateway.rpc import responses
from provgate_storage.rows.values import to_date, to_microseconds

DATES = st.datetimes(timezones=st.just(UTC))
ROWS = st.lists(st.tuples(st.binary(min_size=20, max_size=20), DATES.map(to_microseconds)))


@given(ROWS)
def test_entries_hold_their_dates_exactly(rows: list[tuple[bytes, int]]) -> None:
    for entries in (responses.contents(rows).contents, responses.directories(rows).directories):
        assert [(entry.id, to_microseconds(conversion.to_date(entry.date))) for entry in entries] == rows
        assert all(entry.HasField("date") and 0 <= entry.date.nanos < 10**9 for entry in entries)


@given(ROWS)
def test_columns_hold_the_same(rows: list[tuple[bytes, int]]) -> None:
    expected: list[tuple[bytes, datetime]] = [(entry_id, to_date(date)) for entry_id, date in rows]
    assert list(conversion.to_dates(responses.content_columns(rows).columns)) == expected
    assert list(conversion.to_dates(responses.directory_columns(rows).columns)) == expected
