"""What every `LocalStorage` does beside the interface, whatever database it is over.

An implementation's test file subclasses `LocalStorageContract` and gives it a fixture `new_storage`, which makes
storages over one fresh database, not yet open.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol, TypeVar

import pytest

from provgate_storage.database.local import LocalStorage, RowStream
from provgate_storage.errors import SchemaMismatchError, StorageBusyError, StorageUnavailableError
from provgate_storage.interface import ProvenanceStorageInterface
from provgate_storage.model import EntityType, ProvenanceResult, RelationData, RelationType, RevisionData
from provgate_storage.rows.values import to_date
from tests.support.entries import entry_id
from tests.support.examples import DAY, ODD_PATHS, row, state_of
from tests.support.reference import InMemoryProvenanceStorage

T = TypeVar("T")

RANGES: Final = {"content": 16, "directory": 16, "location": 4, "origin": 1, "revision": 256}
CONTENT: Final = entry_id(1)
RELATION: Final = RelationType.CNT_EARLY_IN_REV


class NewStorage(Protocol):
    def __call__(self, **settings: Any) -> LocalStorage: ...


class LocalStorageContract:
    """The tests."""

    # Set-up and its checks

    def test_setup_again_keeps_the_rows(self, new_storage: NewStorage) -> None:
        with opened(new_storage) as storage:
            storage.location_add([b"kept"])
            storage.setup(RANGES)
            storage.check(RANGES)
            assert storage.location_get_all() == {b"kept"}

    def test_many_programs_set_up_at_once(self, new_storage: NewStorage) -> None:
        def set_up(_: int) -> None:
            with opened(new_storage) as own:
                own.check(RANGES)

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(set_up, range(8)))
        with new_storage() as storage:
            assert storage.recorded_range_counts() == RANGES

    def test_one_of_disagreeing_programs_sets_up(self, new_storage: NewStorage) -> None:
        def set_up(count: int) -> dict[str, int] | None:
            counts = {**RANGES, "content": count}
            with new_storage() as own:
                try:
                    own.setup(counts)
                except SchemaMismatchError:
                    return None
                return counts

        with ThreadPoolExecutor(4) as threads:
            agreed = [counts for counts in threads.map(set_up, (2, 4, 8, 32)) if counts]
        with new_storage() as storage:
            assert agreed == [storage.recorded_range_counts()]
            storage.check(agreed[0])

    def test_other_range_counts_are_refused_unless_they_are_to_replace(self, new_storage: NewStorage) -> None:
        other = {"content": 32, "origin": 1}
        with opened(new_storage) as storage:
            with pytest.raises(SchemaMismatchError, match="content: 16 recorded, 32 configured"):
                storage.setup(other)
            assert storage.recorded_range_counts() == RANGES
            storage.replace_range_counts(other)
            assert storage.recorded_range_counts() == other
            storage.check(other)
            storage.check(None)
            with pytest.raises(SchemaMismatchError) as caught:
                storage.check({"content": 16, "location": 4, "origin": 1})
        assert "(content: 32 recorded, 16 configured; location: none recorded, 4 configured)" in str(caught.value)

    def test_an_empty_database_is_reported(self, new_storage: NewStorage) -> None:
        with new_storage() as storage:
            assert storage.recorded_range_counts() is None
            for range_counts in (None, RANGES):
                with pytest.raises(SchemaMismatchError, match="no schema: run `provgate-workers setup`"):
                    storage.check(range_counts)
            with pytest.raises(SchemaMismatchError):
                storage.content_add([entry_id(1)])
            with pytest.raises(SchemaMismatchError):
                storage.content_get([entry_id(1)])

    def test_it_describes_its_server_before_it_is_set_up(self, new_storage: NewStorage) -> None:
        with new_storage() as storage:
            before = datetime.now(UTC)
            facts = storage.inspect()
            after = datetime.now(UTC)
        assert re.fullmatch(r"(PostgreSQL|MongoDB) \d+\.\d.*", facts.server)
        # The server is on this machine; a clock in milliseconds is rounded down.
        assert before - timedelta(milliseconds=1) <= facts.now <= after
        assert facts.dangers == ()

    def test_a_closed_storage_is_unavailable(self, new_storage: NewStorage) -> None:
        closed = new_storage()
        for call in (closed.probe, lambda: closed.content_add([]), lambda: closed.content_get([])):
            with pytest.raises(StorageUnavailableError, match="not open"):
                call()

    # Concurrent writers

    def test_concurrent_writers_leave_what_either_order_leaves(self, new_storage: NewStorage) -> None:
        seeds = (1, 2)
        start = threading.Barrier(len(seeds))

        def write(seed: int) -> None:
            with new_storage() as own:
                start.wait(60)
                hammer(own, seed)

        with opened(new_storage) as storage:
            with ThreadPoolExecutor(len(seeds)) as threads:
                list(threads.map(write, seeds))
            reference = InMemoryProvenanceStorage()
            for seed in seeds:
                hammer(reference, seed)
            found, expected = state_of(storage), state_of(reference)
        # The race decides which URL came first, and which preferred origin last: one of the values sent.
        urls, preferred = found.pop("origins"), {id: data.origin for id, data in found["revisions"].items()}
        assert urls.keys() == expected.pop("origins").keys()
        assert set(urls.values()) <= set(map(url_of, seeds))
        assert set(preferred.values()) <= set(map(origin_of, seeds))
        for state in (found, expected):
            state["revisions"] = {id: data.date for id, data in state["revisions"].items()}
            state["first"] = {id: first and place_of(first) for id, first in state["first"].items()}
            state["all"] = {id: [place_of(each) for each in every] for id, every in state["all"].items()}
        assert found == expected

    # Streams

    def test_chunks_are_no_larger_than_configured(self, new_storage: NewStorage) -> None:
        with opened(new_storage, stream_chunk_row_count=100) as storage:
            fill_occurrences(storage, 250)
            with storage.content_find_all_stream(CONTENT) as stream:
                assert [(len(chunk), stream.is_over) for chunk in stream] == [(100, False), (100, False), (50, True)]

    def test_streams_and_plain_reads_return_the_same(self, new_storage: NewStorage) -> None:
        with opened(new_storage) as storage:
            fill_occurrences(storage, 2_500)
            storage.content_add({CONTENT: DAY})
            storage.directory_add({CONTENT: DAY})
            storage.origin_add({CONTENT: "url"})
            ids = [CONTENT, entry_id(5)]
            for stream, found in [
                (storage.content_get_stream(ids), storage.content_get(ids)),
                (storage.directory_get_stream(ids), storage.directory_get(ids)),
            ]:
                assert {id: to_date(date) for id, date in everything(stream)} == found != {}
            assert dict(everything(storage.revision_get_stream(ids))) == storage.revision_get(ids) != {}
            assert dict(everything(storage.origin_get_stream(ids))) == storage.origin_get(ids) != {}
            rows = {(CONTENT, found) for found in storage.relation_get_all(RELATION)[CONTENT]}
            for rows_stream in (
                storage.relation_get_stream(RELATION, ids),
                storage.relation_get_stream(RELATION, ids, reverse=True),
                storage.relation_get_all_stream(RELATION),
            ):
                assert sorted(everything(rows_stream), key=path_of) == sorted(rows, key=path_of)
            assert set(everything(storage.entity_get_all_stream(EntityType.REVISION))) == {entry_id(5)}
            assert sorted(everything(storage.location_get_all_stream())) == sorted(storage.location_get_all())
            occurrences = everything(storage.content_find_all_stream(CONTENT, 2_000))
            assert occurrences == list(storage.content_find_all(CONTENT))[:2_000]

    def test_a_stream_can_be_cancelled_before_and_between_chunks(self, new_storage: NewStorage) -> None:
        with opened(new_storage, stream_chunk_row_count=100) as storage:
            fill_occurrences(storage, 250)
            early = storage.relation_get_all_stream(RELATION)
            early.cancel()
            with pytest.raises(StorageUnavailableError, match="cancelled"):
                everything(early)
            stream = storage.relation_get_all_stream(RELATION)
            chunks = iter(stream)
            next(chunks)
            stream.cancel()
            with pytest.raises(StorageUnavailableError, match="cancelled"):
                next(chunks)
            stream.cancel()
            stream.close()

    def test_too_many_streams_are_refused_and_reads_by_id_go_on(self, new_storage: NewStorage) -> None:
        with opened(new_storage, stream_connections=2, stream_wait_s=0.05, stream_chunk_row_count=100) as storage:
            fill_occurrences(storage, 250)
            streams = [storage.content_find_all(CONTENT) for _ in range(2)]
            for stream in streams:
                next(stream)
            with pytest.raises(StorageBusyError, match="the limit is 2"):
                storage.relation_get_all(RELATION)
            assert storage.content_find_first(CONTENT) is not None
            assert storage.revision_get([entry_id(5)]) != {}
            streams.pop().close()
            assert storage.relation_get_all(RELATION) != {}
            streams.pop().close()


@contextmanager
def opened(new_storage: NewStorage, **settings: Any) -> Iterator[LocalStorage]:
    """Gives a storage that is set up."""
    with new_storage(**settings) as storage:
        storage.setup(RANGES)
        yield storage


def fill_occurrences(storage: ProvenanceStorageInterface, count: int) -> None:
    """Makes a content occur under many paths in one revision."""
    storage.revision_add({entry_id(5): RevisionData(DAY, None)})
    storage.relation_add(RELATION, {CONTENT: {row(5, b"%06d" % number) for number in range(count)}})


def everything(stream: RowStream[T]) -> list[T]:
    """Returns the rows of a stream."""
    with stream:
        return [found for chunk in stream for found in chunk]


def path_of(pair: tuple[bytes, RelationData]) -> bytes:
    return pair[1].path or b""


def hammer(storage: ProvenanceStorageInterface, seed: int) -> None:
    """Writes every kind of entry of the same few ids, again and again."""
    draw = random.Random(seed)
    for _ in range(30):
        ids = [entry_id(number) for number in draw.sample(range(40), 12)]
        dates = {id: DAY + timedelta(seconds=draw.randrange(-1_000, 1_000)) for id in ids}
        storage.content_add(dates)
        storage.directory_add(dates)
        storage.revision_add({id: RevisionData(date, origin_of(seed)) for id, date in dates.items()})
        # The preferred one too, so that the race does not decide which are known.
        storage.origin_add(dict.fromkeys([*ids, origin_of(seed)], url_of(seed)))
        storage.location_add(draw.sample(ODD_PATHS, 3))
        for relation in RelationType:
            paths = ODD_PATHS[:4] if relation.has_path else [None]
            storage.relation_add(relation, {id: {RelationData(draw.choice(ids), draw.choice(paths))} for id in ids})


def place_of(result: ProvenanceResult) -> tuple[bytes, datetime, bytes]:
    return result.revision, result.date, result.path


def url_of(seed: int) -> str:
    return f"https://example.org/{seed}"


def origin_of(seed: int) -> bytes:
    return entry_id(100 + seed)
