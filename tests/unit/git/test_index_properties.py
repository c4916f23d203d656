"""The index of random histories, against the histories themselves."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from provgate_client.git import IndexSettings, index_repository
from provgate_storage.interface import ProvenanceStorageInterface
from provgate_storage.model import EntityType, ProvenanceResult, RelationType
from tests.unit.git.crashing import CrashError, CrashingStorage
from tests.unit.git.histories import Draft, Occurrence, Written, heads_of, histories, together, write_history
from tests.unit.git.specification import ExpectedIndex
from tests.unit.git.witness import WitnessStorage

URL = "https://example.org/a"

# Small bounds, so that small histories meet batches, look-ups that are cut, and caches that overflow.
SETTINGS = st.builds(
    IndexSettings,
    batch_rows=st.integers(1, 12),
    batch_revisions=st.integers(1, 4),
    call_entries=st.integers(1, 6),
    batches_in_flight=st.integers(1, 4),
    writers=st.integers(1, 3),
    lookup_revisions=st.integers(1, 5),
    lookup_ids=st.integers(1, 8),
    dates_cached=st.sampled_from([0, 5, 1000]),
    tree_entries_cached=st.sampled_from([0, 5, 1000]),
)


@given(histories(), SETTINGS, st.data())
@settings(max_examples=150, deadline=None)
def test_the_index_is_what_the_rules_say_and_every_date_is_true_when_it_is_sent(
    history: list[Draft], bounds: IndexSettings, data: st.DataObject
) -> None:
    expected, found = ExpectedIndex(), dict[bytes, set[Occurrence]]()
    with tempfile.TemporaryDirectory() as directory:
        every = [
            write_history(Path(directory, str(n)), history, heads)
            for n, heads in enumerate(data.draw(st.lists(heads_of(history), min_size=1, max_size=2)))
        ]
        storage = WitnessStorage(reduce(together, every))
        for written in every:
            report = index_repository(written.path, storage, URL, settings=bounds)
            assert report.is_complete
            assert report.revisions_known + report.revisions_done == report.revisions_total == len(written.dates)
            expected.add(written)
            merge(found, written)
    assert storage.broken == []
    assert rows_of(storage) == expected
    assert_finds(storage, found)


@given(histories(), SETTINGS, st.data())
@settings(max_examples=100, deadline=None)
def test_repositories_may_share_history_and_be_indexed_in_any_order_and_be_killed(
    history: list[Draft], bounds: IndexSettings, data: st.DataObject
) -> None:
    storage: Any = CrashingStorage(data.draw(st.integers(0, 60)), random.Random(data.draw(st.integers(0, 2**32))))
    expected: dict[bytes, set[Occurrence]] = {}
    with tempfile.TemporaryDirectory() as directory:
        repositories = [Path(directory, name) for name in ("one", "other")[: data.draw(st.integers(1, 2))]]
        for repository in repositories:
            merge(expected, write_history(repository, history, data.draw(heads_of(history))))
        # Every repository is run again after the first runs, one of which the crash may have hit.
        for repository in (*repositories, *data.draw(st.permutations(repositories))):
            try:
                index_repository(repository, storage, URL, settings=bounds)
            except CrashError:
                storage.revive()
    assert_finds(storage, expected)


def merge(into: dict[bytes, set[Occurrence]], written: Written) -> None:
    for content, found in written.occurrences().items():
        into.setdefault(content, set()).update(found)


def assert_finds(storage: ProvenanceStorageInterface, expected: Mapping[bytes, set[Occurrence]]) -> None:
    assert storage.entity_get_all(EntityType.CONTENT) == set(expected)
    for content, occurrences in expected.items():
        in_order = sorted(occurrences, key=lambda found: (found.date, found.revision, found.path))
        assert [_occurrence(result) for result in storage.content_find_all(content)] == in_order
        first = storage.content_find_first(content)
        assert first is not None
        assert _occurrence(first) == in_order[0]


def rows_of(storage: ProvenanceStorageInterface) -> ExpectedIndex:
    def rows(relation: RelationType) -> set[tuple[bytes, bytes, bytes]]:
        found = storage.relation_get_all(relation)
        return {(source, row.dst, row.path or b"") for source, some in found.items() for row in some}

    contents = storage.content_get(storage.entity_get_all(EntityType.CONTENT))
    directories = storage.directory_get(storage.entity_get_all(EntityType.DIRECTORY))
    revisions = storage.revision_get(storage.entity_get_all(EntityType.REVISION))
    return ExpectedIndex(
        rows(RelationType.CNT_EARLY_IN_REV),
        rows(RelationType.CNT_IN_DIR),
        rows(RelationType.DIR_IN_REV),
        {content: int(date.timestamp()) for content, date in contents.items()},
        {directory: int(date.timestamp()) for directory, date in directories.items()},
        {revision: int(data.date.timestamp()) for revision, data in revisions.items() if data.date is not None},
    )


def _occurrence(result: ProvenanceResult) -> Occurrence:
    return Occurrence(int(result.date.timestamp()), result.revision, result.path)
