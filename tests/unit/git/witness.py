"""A storage that looks, at every write of a date, whether the promise is kept that the date makes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from provgate_storage.model import Id, RelationData, RelationType, RevisionData
from tests.support.git_repositories import paths
from tests.support.reference import InMemoryProvenanceStorage
from tests.unit.git.histories import Written


class WitnessStorage(InMemoryProvenanceStorage):
    """Knows the repository, and writes down every promise that was not kept when it was made."""

    def __init__(self, written: Written) -> None:
        super().__init__()
        self.broken: list[str] = []
        self._written = written

    def content_add(self, cnts: Iterable[Id] | Mapping[Id, datetime | None]) -> bool:
        rows = self.relation_get(RelationType.CNT_EARLY_IN_REV, cnts)
        for content, date in _dated(cnts):
            if date not in {self._written.dates[row.dst] for row in rows.get(content, ())}:
                self.broken.append(f"content {content.hex()} has no row in a revision of its date")
        return super().content_add(cnts)

    def directory_add(self, dirs: Iterable[Id] | Mapping[Id, datetime | None]) -> bool:
        rows = self.relation_get(RelationType.CNT_IN_DIR, dirs, reverse=True)
        for directory, date in _dated(dirs):
            expected = set(paths(self._written.trees[directory]))
            dates = self.content_get(content for content, _ in expected)
            if expected - {
                (content, row.path) for content, some in rows.items() for row in some if row.dst == directory
            }:
                self.broken.append(f"directory {directory.hex()} lacks rows")
            if {content for content, _ in expected} - set(dates) or date < max(dates.values()).timestamp():
                self.broken.append(f"directory {directory.hex()} has later contents")
        return super().directory_add(dirs)

    def revision_add(self, revs: Iterable[Id] | Mapping[Id, RevisionData]) -> bool:
        for revision, date in _dated(
            {rev: data.date for rev, data in revs.items()} if isinstance(revs, Mapping) else {}
        ):
            expected = set(paths(self._written.trees[self._written.roots[revision]]))
            if date != self._written.dates[revision] or expected != self._visible(revision):
                self.broken.append(f"revision {revision.hex()} is not complete")
            if not self._is_dated(revision):
                self.broken.append(f"revision {revision.hex()} has entities without dates")
            parents = self.relation_get(RelationType.REV_BEFORE_REV, [revision], reverse=True)
            if set(parents) != set(self._written.parents[revision]):
                self.broken.append(f"revision {revision.hex()} lacks parents")
        return super().revision_add(revs)

    def _visible(self, revision: Id) -> set[tuple[Id, bytes]]:
        found = {(content, row.path or b"") for content, row in self._sources(RelationType.CNT_EARLY_IN_REV, revision)}
        for directory, prefix in self._sources(RelationType.DIR_IN_REV, revision):
            for content, suffix in self._sources(RelationType.CNT_IN_DIR, directory):
                found.add((content, b"%s/%s" % (prefix.path, suffix.path)))
        return found

    def _is_dated(self, revision: Id) -> bool:
        contents = {content for content, _ in self._sources(RelationType.CNT_EARLY_IN_REV, revision)}
        directories = {directory for directory, _ in self._sources(RelationType.DIR_IN_REV, revision)}
        return set(self.content_get(contents)) == contents and set(self.directory_get(directories)) == directories

    def _sources(self, relation: RelationType, destination: Id) -> list[tuple[Id, RelationData]]:
        rows = self.relation_get(relation, [destination], reverse=True)
        return [(source, row) for source, some in rows.items() for row in some if row.dst == destination]


def _dated(entries: Iterable[Id] | Mapping[Id, datetime | None]) -> list[tuple[Id, int]]:
    assert isinstance(entries, Mapping)
    return [(entry, int(date.timestamp())) for entry, date in entries.items() if date is not None]
