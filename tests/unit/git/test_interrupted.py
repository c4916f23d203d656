"""How much of its work an interrupted index repeats."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

import pytest

from provgate_client.git import IndexSettings, index_repository
from provgate_storage.model import Id, RelationData, RelationType
from tests.support.git_repositories import Node, RepositoryWriter, content
from tests.support.reference import InMemoryProvenanceStorage
from tests.unit.git.crashing import CrashError

REVISIONS = 130
FILES = 100
# One for each content, and one for the parent.
ROWS_OF_REVISION = FILES + 1
BOUNDS = IndexSettings(batch_rows=2_000)
REPEATED_MAX = BOUNDS.batches_in_flight * (BOUNDS.batch_rows + ROWS_OF_REVISION)
_QUIET_S = 0.3


class SlowWithDates(InMemoryProvenanceStorage):
    """Accepts a date only when no more rows come, and dies after a number of rows."""

    def __init__(self, rows_max: int) -> None:
        super().__init__()
        self.rows_count = 0
        self.rows_max = rows_max
        self.is_slow = True
        self._rows_come = threading.Condition()

    def relation_add(self, relation: RelationType, data: Mapping[Id, set[RelationData]]) -> bool:
        with self._rows_come:
            self._die()
            self.rows_count += sum(map(len, data.values()))
            self._rows_come.notify_all()
        return super().relation_add(relation, data)

    def content_add(self, cnts: Iterable[Id] | Mapping[Id, datetime | None]) -> bool:
        with self._rows_come:
            while self.is_slow and self.rows_count < self.rows_max and self._rows_come.wait(_QUIET_S):
                pass
            self._die()
        return super().content_add(cnts)

    def _die(self) -> None:
        if self.rows_count >= self.rows_max:
            raise CrashError


def test_an_interrupted_index_repeats_the_batches_in_flight(tmp_path: Path) -> None:
    """Batches are small enough if this is some seconds of work: five where 12,000 rows are written a second."""
    writer, parents = RepositoryWriter(tmp_path / "r.git"), list[bytes]()
    for n in range(REVISIONS):
        files: dict[bytes, Node] = {b"%d" % file: content(f"{n} {file}") for file in range(FILES)}
        parents = [writer.commit(writer.tree(files), n, parents)]
    writer.ref(parents[0])
    storage = SlowWithDates(rows_max=10_197)
    with pytest.raises(CrashError):
        index_repository(writer.path, storage, None, settings=BOUNDS)
    acked, storage.rows_max, storage.is_slow = storage.rows_count, 10**9, False
    known = index_repository(writer.path, storage, None, settings=BOUNDS).revisions_known
    assert acked - known * ROWS_OF_REVISION <= REPEATED_MAX
    assert IndexSettings().batches_in_flight * IndexSettings().batch_rows <= 60_000
