"""What every `LocalStorage` does beside the interface, whatever database it is over.

An implementation's test file subclasses `LocalStorageContract` and gives it a fixture `new_storage`, which makes
storages over one fresh database, not yet open.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from provgate_storage.database.local import LocalStorage
from provgate_storage.errors import SchemaMismatchError
from tests.support.entries import entry_id

RANGES: Final = {"content": 16, "directory": 16, "location": 4, "origin": 1, "revision": 256}

NewStorage = Callable[[], LocalStorage]


class LocalStorageContract:
    """The tests."""

    def test_it_is_a_local_storage(self, new_storage: NewStorage) -> None:
        assert isinstance(new_storage(), LocalStorage)

    def test_setup_again_keeps_the_rows(self, new_storage: NewStorage) -> None:
        with new_storage() as storage:
            storage.setup(RANGES)
            storage.location_add([b"kept"])
            storage.setup(RANGES)
            storage.check(RANGES)
            assert storage.location_get_all() == {b"kept"}

    def test_many_programs_set_up_at_once(self, new_storage: NewStorage) -> None:
        def set_up(_: int) -> None:
            with new_storage() as own:
                own.setup(RANGES)
                own.check(RANGES)

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(set_up, range(8)))
        with new_storage() as storage:
            assert storage.recorded_range_counts() == RANGES

    def test_of_programs_that_disagree_and_set_up_at_once_one_goes_on(self, new_storage: NewStorage) -> None:
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
        with new_storage() as storage:
            storage.setup(RANGES)
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

    def test_an_empty_database_is_named_so(self, new_storage: NewStorage) -> None:
        with new_storage() as storage:
            assert storage.recorded_range_counts() is None
            for range_counts in (None, RANGES):
                with pytest.raises(SchemaMismatchError, match="no schema: run `provgate-workers setup`"):
                    storage.check(range_counts)
            with pytest.raises(SchemaMismatchError):
                storage.content_add([entry_id(1)])
            with pytest.raises(SchemaMismatchError):
                storage.content_get([entry_id(1)])

    def test_it_tells_of_its_server_before_it_is_set_up(self, new_storage: NewStorage) -> None:
        with new_storage() as storage:
            before = datetime.now(UTC)
            facts = storage.inspect()
            after = datetime.now(UTC)
        assert re.fullmatch(r"(PostgreSQL|MongoDB) \d+\.\d.*", facts.server)
        # The server is on this machine; a clock in milliseconds is rounded down.
        assert before - timedelta(milliseconds=1) <= facts.now <= after
        assert facts.dangers == ()
