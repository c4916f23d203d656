"""The merge rules."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from provgate_storage.merge import add_dates, add_origins, add_relations, earliest, merge_revisions
from provgate_storage.model import RelationData, RevisionData

DATES = st.none() | st.datetimes(timezones=st.just(UTC))
DAY = datetime(2020, 1, 1, tzinfo=UTC)
ID = b"x" * 20


@given(DATES, DATES, DATES)
def test_dates_merge_in_any_order(a: datetime | None, b: datetime | None, c: datetime | None) -> None:
    assert earliest(a, b) == earliest(b, a) == min((date for date in (a, b) if date), default=None)
    assert earliest(earliest(a, b), c) == earliest(a, earliest(b, c))
    assert earliest(a, a) == a


def test_a_preferred_origin_replaces_even_where_the_date_loses() -> None:
    stored = RevisionData(DAY, b"a" * 20)
    assert merge_revisions(stored, RevisionData(DAY.replace(year=2021), b"b" * 20)) == RevisionData(DAY, b"b" * 20)
    assert merge_revisions(stored, RevisionData(None, None)) == stored


def test_collections_merge_by_key() -> None:
    dates: dict[bytes, datetime | None] = {}
    add_dates(dates, [(ID, None), (ID, DAY), (ID, None)])
    assert dates == {ID: DAY}
    urls: dict[bytes, str] = {}
    add_origins(urls, [(ID, "first"), (ID, "second")])
    assert urls == {ID: "first"}
    rows: dict[bytes, set[RelationData]] = {}
    add_relations(rows, [(ID, RelationData(ID, b"a")), (ID, RelationData(ID, b"a")), (ID, RelationData(ID, b"b"))])
    assert rows == {ID: {RelationData(ID, b"a"), RelationData(ID, b"b")}}
