"""The merge rules."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import reduce
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from provgate_storage.merge import add_dates, add_origins, add_relations, add_revisions, earliest, merge_revisions
from provgate_storage.model import RelationData, RevisionData

DATES = st.none() | st.datetimes(timezones=st.just(UTC))
DAY = datetime(2020, 1, 1, tzinfo=UTC)
ID = b"x" * 20
ORIGINS = st.none() | st.sampled_from([b"a" * 20, b"b" * 20])
REVISIONS = st.builds(RevisionData, DATES, ORIGINS)
FEW_IDS = st.sampled_from([b"x" * 20, b"y" * 20, b"z" * 20])


@given(DATES, DATES, DATES)
def test_dates_merge_in_any_order(a: datetime | None, b: datetime | None, c: datetime | None) -> None:
    assert earliest(a, b) == earliest(b, a) == min((date for date in (a, b) if date), default=None)
    assert earliest(earliest(a, b), c) == earliest(a, earliest(b, c))
    assert earliest(a, a) == a


@given(REVISIONS, REVISIONS, REVISIONS)
def test_revisions_merge_in_any_groups(a: RevisionData, b: RevisionData, c: RevisionData) -> None:
    assert merge_revisions(merge_revisions(a, b), c) == merge_revisions(a, merge_revisions(b, c))
    assert merge_revisions(a, a) == a
    assert merge_revisions(a, b).date == merge_revisions(b, a).date


@given(REVISIONS, REVISIONS)
def test_an_origin_is_one_of_those_merged_and_none_only_if_there_was_none(a: RevisionData, b: RevisionData) -> None:
    for merged in (merge_revisions(a, b), merge_revisions(b, a)):
        assert merged.origin in {data.origin for data in (a, b) if data.origin is not None} or (
            a.origin is b.origin is merged.origin is None
        )


@given(st.lists(st.tuples(FEW_IDS, DATES)), st.randoms(use_true_random=False))
def test_dates_of_many_ids_merge_in_any_order_and_number(
    entries: list[tuple[bytes, datetime | None]], shuffler: Random
) -> None:
    once: dict[bytes, datetime | None] = {}
    add_dates(once, entries)
    assert once == {
        id: min((date for known, date in entries if known == id and date), default=None) for id, _ in entries
    }
    again = entries + entries[::2]
    shuffler.shuffle(again)
    twice: dict[bytes, datetime | None] = {}
    add_dates(twice, again)
    assert twice == once


@given(st.lists(st.tuples(FEW_IDS, REVISIONS)))
def test_many_revisions_merge_as_one_after_the_other(entries: list[tuple[bytes, RevisionData]]) -> None:
    merged: dict[bytes, RevisionData] = {}
    add_revisions(merged, entries)
    assert merged == {
        id: reduce(merge_revisions, [data for known, data in entries if known == id]) for id, _ in entries
    }


@given(st.lists(st.tuples(FEW_IDS, st.builds(RelationData, FEW_IDS, st.binary(max_size=1)))))
def test_rows_merge_as_a_set(entries: list[tuple[bytes, RelationData]]) -> None:
    merged: dict[bytes, set[RelationData]] = {}
    add_relations(merged, entries)
    add_relations(merged, reversed(entries))
    assert {(id, row) for id, rows in merged.items() for row in rows} == set(entries)


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
