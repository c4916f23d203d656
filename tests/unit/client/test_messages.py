"""The messages that entries are cut into."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provgate_client.adapter import messages
from provgate_client.adapter.messages import MESSAGE_MAX_BYTES, EntryKind, check_entries, requests_of
from provgate_storage.model import RelationData, RelationType, RevisionData

ID = b"\xff" * 20
EARLY, LATE = datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)

LARGEST: list[tuple[EntryKind[Any], Any]] = [
    (messages.CONTENT, (ID, LATE)),
    (messages.CONTENT, (ID, EARLY)),
    (messages.DIRECTORY, (ID, LATE)),
    (messages.REVISION, (ID, RevisionData(EARLY, ID))),
    (messages.ORIGIN, (ID, "\U0001f600" * 2048)),
    (messages.LOCATION, b"x" * 4096),
    (messages.relation_kind(RelationType.CNT_IN_DIR), (ID, RelationData(ID, b"x" * 4096))),
    (messages.relation_kind(RelationType.REV_IN_ORG), (ID, RelationData(ID, None))),
]


@pytest.mark.parametrize(("kind", "entry"), LARGEST)
def test_no_message_is_larger_than_allowed(kind: EntryKind[Any], entry: Any) -> None:
    assert check_entries(kind, [entry]) == 1
    made = list(requests_of(kind, [entry] * 100_000 if kind.text_bytes is None else [entry] * 2000, 100_000))
    assert len(made) > 1
    assert max(message.ByteSize() for _, message in made) <= MESSAGE_MAX_BYTES


@given(st.lists(st.binary(max_size=20)), st.integers(1, 7))
def test_nothing_is_lost_and_order_is_kept(paths: list[bytes], max_count: int) -> None:
    made: list[tuple[int, Any]] = list(requests_of(messages.LOCATION, paths, max_count))
    assert [path for _, message in made for path in message.paths] == paths
    assert all(1 <= count == len(message.paths) <= max_count for count, message in made)


def test_entries_are_taken_when_they_are_needed() -> None:
    taken = 0

    def endless() -> Iterator[tuple[bytes, None]]:
        nonlocal taken
        while True:
            taken += 1
            yield ID, None

    assert next(requests_of(messages.CONTENT, endless(), 10))[0] == 10
    assert taken == 10
