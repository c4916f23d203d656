"""How much of its work an index that is interrupted does again."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

import pytest

from provgate_client.git import index_repository
from provgate_storage.model import Id, RelationData, RelationType
from tests.support.git_repositories import Node, RepositoryWriter, content
from tests.support.reference import InMemoryProvenanceStorage
from tests.unit.git.crashing import CrashError

REVISIONS = 130
FILES = 1_000
# Those of its contents, and the one of its parent.
ROWS_OF_REVISION = FILES + 1

# A second of work where 50,000 rows are taken a second, five on a machine that takes 12,000.
REPEATED_MAX = 3 * (20_000 + ROWS_OF_REVISION)

_QUIET_S = 1.0


class SlowWithDates(InMemoryProvenanceStorage):
    """Takes a date when it gets no rows any more, and dies when it has taken so many rows."""

    def __init__(self, rows_max: int) -> None:
        super().__init__()
        self._rows_max = rows_max
        self._rows_count = 0
        self._is_slow = True
        self._rows_come = threading.Condition()

    def relation_add(self, relation: RelationType, data: Mapping[Id, set[RelationData]]) -> bool:
        with self._rows_come:
            self._die()
            self._rows_count += sum(map(len, data.values()))
            self._rows_come.notify_all()
        return super().relation_add(relation, data)

    def content_add(self, cnts: Iterable[Id] | Mapping[Id, datetime | None]) -> bool:
        with self._rows_come:
            while self._is_slow and self._rows_count < self._rows_max and self._rows_come.wait(_QUIET_S):
                pass
            self._die()
        return super().content_add(cnts)

    def revive(self) -> int:
        """Lets it live for good, and fast; returns how many rows it has taken."""
        self._is_slow, self._rows_max = False, 10**9
        return self._rows_count

    def _die(self) -> None:
        if self._rows_count >= self._rows_max:
            raise CrashError


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A history in which all contents of every revision are new."""
    writer, parents = RepositoryWriter(tmp_path / "r.git"), list[bytes]()
    for n in range(REVISIONS):
        files: dict[bytes, Node] = {b"%d" % file: content(f"{n} {file}") for file in range(FILES)}
        parents = [writer.commit(writer.tree(files), n, parents)]
    writer.ref(parents[0])
    return writer.path


def test_an_interrupted_index_repeats_some_seconds_of_work(repository: Path) -> None:
    storage = SlowWithDates(rows_max=101_970)
    with pytest.raises(CrashError):
        index_repository(repository, storage, None)
    acked = storage.revive()
    known = index_repository(repository, storage, None).revisions_known
    assert acked - known * ROWS_OF_REVISION <= REPEATED_MAX
