from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provgate_client.adapter import messages as entries
from provgate_client.adapter.messages import MESSAGE_MAX_BYTES, EntryKind, check_entries, requests_of
from provgate_client.adapter.progress import WriteLedger, WriteProgress
from provgate_client.adapter.writing import RequestFeed
from provgate_storage.model import RelationData, RelationType, RevisionData

ID = b"\xff" * 20
DATE = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)

LARGEST: list[tuple[EntryKind[Any], Any]] = [
    (entries.CONTENT, (ID, DATE)),
    (entries.CONTENT, (ID, datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC))),
    (entries.DIRECTORY, (ID, DATE)),
    (entries.REVISION, (ID, RevisionData(datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC), ID))),
    (entries.ORIGIN, (ID, "\U0001f600" * 2048)),
    (entries.LOCATION, b"x" * 4096),
    (entries.relation_kind(RelationType.CNT_IN_DIR), (ID, RelationData(ID, b"x" * 4096))),
    (entries.relation_kind(RelationType.REV_IN_ORG), (ID, RelationData(ID, None))),
]


@pytest.mark.parametrize(("kind", "entry"), LARGEST)
def test_no_message_is_larger_than_allowed(kind: EntryKind[Any], entry: Any) -> None:
    assert check_entries(kind, [entry]) == 1
    messages = list(requests_of(kind, [entry] * 100_000 if kind.text_bytes is None else [entry] * 2000, 100_000))
    assert len(messages) > 1
    assert max(message.ByteSize() for _, message in messages) <= MESSAGE_MAX_BYTES


@given(st.lists(st.binary(max_size=20)), st.integers(1, 7))
def test_nothing_is_lost_and_order_is_kept(paths: list[bytes], max_count: int) -> None:
    messages = list(requests_of(entries.LOCATION, paths, max_count))
    assert [path for _, message in messages for path in message.paths] == paths
    assert all(1 <= count == len(message.paths) <= max_count for count, message in messages)


def test_entries_are_taken_as_they_are_needed() -> None:
    taken = 0

    def endless() -> Iterator[tuple[bytes, None]]:
        nonlocal taken
        while True:
            taken += 1
            yield ID, None

    messages = requests_of(entries.CONTENT, endless(), 10)
    assert next(messages)[0] == 10
    assert taken == 10


class TestLedger:
    def test_a_checkpoint_is_where_all_received_is_acked(self) -> None:
        ledger = WriteLedger()
        assert ledger.start_call() == 0
        assert ledger.record(WriteProgress(100, 100, 100))
        assert ledger.record(WriteProgress(300, 300, 299))
        assert ledger.checkpoint_count == 100
        assert ledger.start_call() == 100
        assert ledger.record(WriteProgress(250, 250, 250))
        assert ledger.checkpoint_count == 350
        assert ledger.progress == WriteProgress(350, 350, 350)

    def test_nothing_new_is_no_progress(self) -> None:
        ledger = WriteLedger()
        ledger.start_call()
        assert ledger.record(WriteProgress(100, 100, 50))
        ledger.start_call()
        assert not ledger.record(WriteProgress(100, 100, 50))

    @given(st.lists(st.lists(st.tuples(*[st.integers(0, 100)] * 3).map(sorted), max_size=5), max_size=5))
    def test_the_checkpoint_never_passes_what_was_acked(self, calls: list[list[list[int]]]) -> None:
        ledger = WriteLedger()
        for counts in calls:
            start, before = ledger.start_call(), ledger.progress
            for acked, published, received in counts:
                ledger.record(WriteProgress(received, published, acked))
                assert ledger.checkpoint_count <= ledger.progress.acked_count
                assert ledger.progress.acked_count >= max(before.acked_count, start + acked)


class Meanwhile(threading.Condition):
    """Where a thread would wait, the next of some events happens instead."""

    def __init__(self, *events: Callable[[], None]) -> None:
        super().__init__()
        self.events = list(events)

    def wait(self, timeout: float | None = None) -> bool:
        self.events.pop(0)()
        return True


class TestFeed:
    def test_it_waits_for_acks(self) -> None:
        feed = RequestFeed(iter([(5, "a"), (5, "b"), (5, "c")]), checkpoint_count=10)
        assert [next(feed), next(feed)] == ["a", "b"]
        meanwhile = Meanwhile(lambda: feed.acked(9), lambda: feed.acked(10))
        feed._condition = meanwhile
        assert next(feed) == "c"
        assert not meanwhile.events
        assert feed.sent_count == 15

    def test_closing_lets_go(self) -> None:
        feed = RequestFeed(iter([(5, "a"), (5, "b")]), checkpoint_count=5)
        thread = threading.Thread(target=lambda: list(feed))
        thread.start()
        feed.close()
        thread.join(5)
        assert not thread.is_alive()

    @settings(max_examples=20)
    @given(st.lists(st.integers(1, 20), max_size=20), st.integers(1, 50))
    def test_it_ends_when_everything_is_acked_at_once(self, counts: list[int], checkpoint_count: int) -> None:
        feed = RequestFeed(iter([(count, count) for count in counts]), checkpoint_count)
        taken = []
        for count in feed:
            taken.append(count)
            feed.acked(feed.sent_count)
        assert taken == counts
