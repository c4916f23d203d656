"""The rows that writes leave."""

from __future__ import annotations

from datetime import UTC, datetime

from bench.writes.expected import expected_rows
from bench.writes.loads import Write
from provgate_storage import EntityType, RelationData, RelationType, RevisionData

ONE, OTHER = b"\x01" * 20, b"\x02" * 20
EARLY, LATE = datetime(2005, 4, 7, tzinfo=UTC), datetime(2006, 4, 7, tzinfo=UTC)


def test_of_dates_the_earliest_is_expected() -> None:
    writes = [
        Write(EntityType.CONTENT, {ONE: LATE, OTHER: None}, 2),
        Write(EntityType.CONTENT, {ONE: EARLY}, 1),
        Write(EntityType.CONTENT, {ONE: None}, 1),
    ]
    assert expected_rows(writes)[EntityType.CONTENT] == {(ONE, EARLY), (OTHER, None)}


def test_a_revision_keeps_its_origin() -> None:
    writes = [
        Write(EntityType.REVISION, {ONE: RevisionData(LATE, OTHER)}, 1),
        Write(EntityType.REVISION, {ONE: RevisionData(EARLY, None)}, 1),
    ]
    assert expected_rows(writes)[EntityType.REVISION] == {(ONE, EARLY, OTHER)}


def test_rows_of_relations_are_expected_once_and_with_a_path_where_they_have_one() -> None:
    rows = {ONE: {RelationData(OTHER, b"a"), RelationData(OTHER, b"b")}}
    writes = [Write(RelationType.CNT_IN_DIR, rows, 2), Write(RelationType.CNT_IN_DIR, rows, 2)]
    writes.append(Write(RelationType.REV_IN_ORG, {ONE: {RelationData(OTHER, None)}}, 1))
    expected = expected_rows(writes)
    assert expected[RelationType.CNT_IN_DIR] == {(ONE, OTHER, b"a"), (ONE, OTHER, b"b")}
    assert expected[RelationType.REV_IN_ORG] == {(ONE, OTHER)}


def test_sets_are_sets() -> None:
    writes = [Write("location", {b"a", b"b"}, 2), Write(EntityType.ORIGIN, {ONE: "https://example.org/"}, 1)]
    expected = expected_rows(writes)
    assert expected["location"] == {(b"a",), (b"b",)}
    assert expected[EntityType.ORIGIN] == {(ONE, "https://example.org/")}
