"""Rows that are merged leave what the same rows would one after the other."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provgate_broker.topology.policy import OPERATIONS, Operation, WriteMethod
from provgate_storage.model import RevisionData
from provgate_storage.rows.rows import Row, merged
from tests.support.entries import Entry, add_entries, entry_of, name_of, rows_of
from tests.support.examples import state_of
from tests.support.reference import InMemoryProvenanceStorage

IDS = st.sampled_from([bytes([first]) * 20 for first in range(4)])
DATES = st.none() | st.integers(1, 5).map(lambda day: datetime(2020, 1, day, tzinfo=UTC))
PATHS = st.sampled_from([b"", b"a", b"a/b", b"\xff"])


def entries_of(operation: Operation) -> st.SearchStrategy[Entry]:
    if operation.relation is not None:
        return st.tuples(IDS, IDS, PATHS if operation.relation.has_path else st.none())
    return {
        WriteMethod.CONTENT_ADD: st.tuples(IDS, DATES),
        WriteMethod.DIRECTORY_ADD: st.tuples(IDS, DATES),
        WriteMethod.LOCATION_ADD: st.tuples(PATHS),
        WriteMethod.ORIGIN_ADD: st.tuples(IDS, st.sampled_from(["a", "b"])),
        WriteMethod.REVISION_ADD: st.tuples(IDS, st.builds(RevisionData, DATES, st.none() | IDS)),
    }[operation.method]


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_merged_rows_leave_what_was_written(operation: Operation) -> None:
    @given(st.lists(entries_of(operation), max_size=12))
    def compare(entries: list[Entry]) -> None:
        rows = merged(name_of(operation), rows_of(entries, operation))
        found, expected = InMemoryProvenanceStorage(), InMemoryProvenanceStorage()
        for row in rows:
            add_entries(found, operation, [entry_of(row, operation)])
        for entry in entries:
            add_entries(expected, operation, [entry])
        assert state_of(found) == state_of(expected)
        assert len(set(map(key_of, rows))) == len(rows)
        assert sorted(rows, key=key_of) == rows

    def key_of(row: tuple[bytes, ...]) -> tuple[bytes, ...]:
        return row if operation.relation is not None else row[:1]

    compare()


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_dates_and_sets_merge_in_any_order_and_any_number(operation: Operation) -> None:
    @given(st.lists(entries_of(operation), max_size=12), st.randoms(use_true_random=False))
    def compare(entries: list[Entry], shuffler: Random) -> None:
        rows = rows_of(entries, operation)
        again = rows + rows[::2]
        shuffler.shuffle(again)
        assert [without_registers(row) for row in merged(name_of(operation), again)] == [
            without_registers(row) for row in merged(name_of(operation), rows)
        ]

    def without_registers(row: Row) -> Row:
        registers = {WriteMethod.ORIGIN_ADD: 1, WriteMethod.REVISION_ADD: 1}
        return row[: len(row) - registers.get(operation.method, 0)]

    compare()
