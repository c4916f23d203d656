"""A storage that dies in the middle of a write."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TypeVar

from provgate_storage.model import Id, RelationData, RelationType, RevisionData
from tests.support.reference import InMemoryProvenanceStorage

K = TypeVar("K")
V = TypeVar("V")


class CrashError(Exception):
    """The process, as it were, is dead."""


class CrashingStorage(InMemoryProvenanceStorage):
    """Keeps a random part of write number `crash_at` and raises; no later write is kept, until `revive`."""

    def __init__(self, crash_at: int, chance: random.Random) -> None:
        super().__init__()
        self._lives = crash_at
        self._chance = chance
        self._counting = threading.Lock()
        self._immortal = False

    def revive(self) -> None:
        self._immortal = True

    def content_add(self, cnts: Iterable[Id] | Mapping[Id, datetime | None]) -> bool:
        assert isinstance(cnts, Mapping)
        with self._life(cnts) as kept:
            return super().content_add(kept)

    def directory_add(self, dirs: Iterable[Id] | Mapping[Id, datetime | None]) -> bool:
        assert isinstance(dirs, Mapping)
        with self._life(dirs) as kept:
            return super().directory_add(kept)

    def origin_add(self, orgs: Mapping[Id, str]) -> bool:
        with self._life(orgs) as kept:
            return super().origin_add(kept)

    def revision_add(self, revs: Iterable[Id] | Mapping[Id, RevisionData]) -> bool:
        assert isinstance(revs, Mapping)
        with self._life(revs) as kept:
            return super().revision_add(kept)

    def relation_add(self, relation: RelationType, data: Mapping[Id, set[RelationData]]) -> bool:
        rows = {(src, row): row for src, some in data.items() for row in some}
        with self._life(rows) as kept:
            by_source: dict[Id, set[RelationData]] = {}
            for src, row in kept:
                by_source.setdefault(src, set()).add(row)
            return super().relation_add(relation, by_source)

    @contextmanager
    def _life(self, entries: Mapping[K, V]) -> Iterator[dict[K, V]]:
        with self._counting:
            self._lives -= 1
            lives = self._lives
        if self._immortal or lives >= 0:
            yield dict(entries)
            return
        if lives == -1:
            share = self._chance.random()
            yield {key: value for key, value in entries.items() if self._chance.random() < share}
        raise CrashError
