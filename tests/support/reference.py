"""The provenance index in dictionaries, written in the most obvious way.

It gives the expected answers of the contract tests, runs the contract itself, and stands in for a storage where a test
is about something else.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Self

from provgate_storage.model import EntityType, Id, Path, ProvenanceResult, RelationData, RelationType, RevisionData
from provgate_storage.rows.rows import Row
from provgate_storage.rows.values import (
    check_date,
    check_entity,
    check_id,
    check_limit,
    check_path,
    check_relation,
    check_relation_path,
    check_url,
)
from tests.support.entries import (
    OPERATIONS_BY_NAME,
    add_dates,
    add_entries,
    add_origins,
    add_relations,
    add_revisions,
    entry_of,
)


class InMemoryProvenanceStorage:
    """A `ProvenanceStorageInterface` that keeps everything in memory. Thread-safe; closing it loses nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._contents: dict[Id, datetime | None] = {}
        self._directories: dict[Id, datetime | None] = {}
        self._revisions: dict[Id, RevisionData] = {}
        self._origins: dict[Id, str] = {}
        self._locations: set[Path] = set()
        self._relations: dict[RelationType, dict[Id, set[RelationData]]] = {relation: {} for relation in RelationType}

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def content_add(self, cnts: Iterable[Id] | Mapping[Id, datetime | None]) -> bool:
        return self._add_dates(self._contents, cnts)

    def directory_add(self, dirs: Iterable[Id] | Mapping[Id, datetime | None]) -> bool:
        return self._add_dates(self._directories, dirs)

    def location_add(self, paths: Iterable[Path]) -> bool:
        checked = {check_path(path) for path in paths}
        with self._lock:
            self._locations |= checked
        return True

    def origin_add(self, orgs: Mapping[Id, str]) -> bool:
        checked = [(check_id(entry_id), check_url(url)) for entry_id, url in orgs.items()]
        with self._lock:
            add_origins(self._origins, checked)
        return True

    def revision_add(self, revs: Iterable[Id] | Mapping[Id, RevisionData]) -> bool:
        pairs = (
            revs.items() if isinstance(revs, Mapping) else ((entry_id, RevisionData(None, None)) for entry_id in revs)
        )
        checked = [(check_id(entry_id), _checked_revision(data)) for entry_id, data in pairs]
        with self._lock:
            add_revisions(self._revisions, checked)
        return True

    def relation_add(self, relation: RelationType, data: Mapping[Id, set[RelationData]]) -> bool:
        relation = check_relation(relation)
        checked = [
            (check_id(src), RelationData(check_id(row.dst), check_relation_path(relation, row.path)))
            for src, rows in data.items()
            for row in rows
        ]
        with self._lock:
            add_relations(self._relations[relation], checked)
        return True

    def write_rows(self, name: str, rows: Sequence[Row]) -> bool:
        operation = OPERATIONS_BY_NAME[name]
        return add_entries(self, operation, (entry_of(row, operation) for row in rows))

    def content_get(self, ids: Iterable[Id]) -> dict[Id, datetime]:
        return self._get_dates(self._contents, ids)

    def directory_get(self, ids: Iterable[Id]) -> dict[Id, datetime]:
        return self._get_dates(self._directories, ids)

    def revision_get(self, ids: Iterable[Id]) -> dict[Id, RevisionData]:
        wanted = {check_id(entry_id) for entry_id in ids}
        with self._lock:
            found = {entry_id: self._revisions[entry_id] for entry_id in wanted if entry_id in self._revisions}
        return {entry_id: data for entry_id, data in found.items() if data != RevisionData(None, None)}

    def origin_get(self, ids: Iterable[Id]) -> dict[Id, str]:
        wanted = {check_id(entry_id) for entry_id in ids}
        with self._lock:
            return {entry_id: self._origins[entry_id] for entry_id in wanted if entry_id in self._origins}

    def relation_get(
        self, relation: RelationType, ids: Iterable[Id], reverse: bool = False
    ) -> dict[Id, set[RelationData]]:
        wanted = {check_id(entry_id) for entry_id in ids}
        found: dict[Id, set[RelationData]] = {}
        with self._lock:
            rows = self._rows(check_relation(relation))
            add_relations(found, ((src, row) for src, row in rows if (row.dst if reverse else src) in wanted))
        return found

    def relation_get_all(self, relation: RelationType) -> dict[Id, set[RelationData]]:
        with self._lock:
            return {src: set(rows) for src, rows in self._relations[check_relation(relation)].items()}

    def entity_get_all(self, entity: EntityType) -> set[Id]:
        entity = check_entity(entity)
        added: dict[EntityType, Iterable[Id]] = {
            EntityType.CONTENT: self._contents,
            EntityType.DIRECTORY: self._directories,
            EntityType.REVISION: self._revisions,
            EntityType.ORIGIN: self._origins,
        }
        with self._lock:
            found = set(added[entity])
            for relation in RelationType:
                for src, row in self._rows(relation):
                    found |= {src} if relation.source is entity else set()
                    found |= {row.dst} if relation.destination is entity else set()
            if entity is EntityType.ORIGIN:
                found |= {data.origin for data in self._revisions.values() if data.origin is not None}
        return found

    def location_get_all(self) -> set[Path]:
        with self._lock:
            implied = {row.path for relation in RelationType for _, row in self._rows(relation) if row.path is not None}
            return self._locations | implied

    def content_find_first(self, id: Id) -> ProvenanceResult | None:
        check_id(id)
        with self._lock:
            results = self._results(id, self._early_occurrences(id))
        return results[0] if results else None

    def content_find_all(self, id: Id, limit: int | None = None) -> Generator[ProvenanceResult, None, None]:
        check_id(id)
        limit = check_limit(limit)
        with self._lock:
            results = self._results(id, {*self._early_occurrences(id), *self._joined_occurrences(id)})
        yield from results[:limit]

    def with_path(self) -> bool:
        return True

    def _add_dates(self, into: dict[Id, datetime | None], entries: Iterable[Id] | Mapping[Id, datetime | None]) -> bool:
        pairs = entries.items() if isinstance(entries, Mapping) else ((entry_id, None) for entry_id in entries)
        checked = [(check_id(entry_id), date if date is None else check_date(date)) for entry_id, date in pairs]
        with self._lock:
            add_dates(into, checked)
        return True

    def _get_dates(self, stored: Mapping[Id, datetime | None], ids: Iterable[Id]) -> dict[Id, datetime]:
        wanted = {check_id(entry_id) for entry_id in ids}
        with self._lock:
            found = {entry_id: stored.get(entry_id) for entry_id in wanted}
        return {entry_id: date for entry_id, date in found.items() if date is not None}

    def _rows(self, relation: RelationType) -> Iterator[tuple[Id, RelationData]]:
        return ((src, row) for src, rows in self._relations[relation].items() for row in rows)

    def _early_occurrences(self, content: Id) -> set[tuple[Id, Path]]:
        rows = self._relations[RelationType.CNT_EARLY_IN_REV].get(content, set())
        return {(row.dst, row.path) for row in rows if row.path is not None}

    def _joined_occurrences(self, content: Id) -> set[tuple[Id, Path]]:
        found = set()
        for in_directory in self._relations[RelationType.CNT_IN_DIR].get(content, set()):
            for in_revision in self._relations[RelationType.DIR_IN_REV].get(in_directory.dst, set()):
                found.add((in_revision.dst, _joined(in_revision.path or b"", in_directory.path or b"")))
        return found

    def _results(self, content: Id, occurrences: Iterable[tuple[Id, Path]]) -> list[ProvenanceResult]:
        results = []
        for revision, path in occurrences:
            known = self._revisions.get(revision, RevisionData(None, None))
            if known.date is not None:
                url = None if known.origin is None else self._origins.get(known.origin)
                results.append(ProvenanceResult(content, revision, known.date, url, path))
        return sorted(results, key=lambda result: (result.date, result.revision, result.path))


def _checked_revision(data: RevisionData) -> RevisionData:
    return RevisionData(
        None if data.date is None else check_date(data.date), None if data.origin is None else check_id(data.origin)
    )


def _joined(prefix: Path, suffix: Path) -> Path:
    return suffix if prefix in (b"", b".") else prefix + b"/" + suffix
