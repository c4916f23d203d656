"""What is the same in every storage over a database: rows checked and merged, and reads as streams of rows."""

# ruff: noqa: D102 - what a method without a docstring does is said by the interface

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import chain
from types import TracebackType
from typing import Protocol, Self, TypeVar

from provgate_storage.database.local import RowStream
from provgate_storage.model import EntityType, Id, Path, ProvenanceResult, RelationData, RelationType, RevisionData
from provgate_storage.rows.arguments import dated_rows, location_rows, origin_rows, relation_rows, revision_rows
from provgate_storage.rows.rows import LOCATION, Row, merged
from provgate_storage.rows.values import check_relation, to_date

T = TypeVar("T")


def ends_of(entity: EntityType) -> list[tuple[str, str]]:
    """Returns (name, field) of all that names entities of a type, their own ids first.

    The name is of an entity or a relation; the field is `id` of the entities themselves, `src` and `dst` of relations,
    and `origin` of revisions.
    """
    ends = [(entity.value, "id")]
    for relation in RelationType:
        ends += [(relation.value, "src")] if relation.source is entity else []
        ends += [(relation.value, "dst")] if relation.destination is entity else []
    if entity is EntityType.ORIGIN:
        ends.append((EntityType.REVISION.value, "origin"))
    return ends


def names_with_paths() -> list[str]:
    """Returns the names of all that holds paths: the locations themselves, and the relations that have them."""
    return [LOCATION, *(relation.value for relation in RelationType if relation.has_path)]


class Reads(Protocol):
    """The stream of each read. Arguments are checked at once; a query starts with its stream."""

    def contents(self, ids: Iterable[Id]) -> RowStream[tuple[Id, int]]:
        """Returns the dates of contents that have one, in microseconds since 1970-01-01T00:00:00Z."""

    def directories(self, ids: Iterable[Id]) -> RowStream[tuple[Id, int]]:
        """Returns the dates of directories that have one, as `contents`."""

    def revisions(self, ids: Iterable[Id]) -> RowStream[tuple[Id, RevisionData]]:
        """Returns what is known of revisions."""

    def origins(self, ids: Iterable[Id]) -> RowStream[tuple[Id, str]]:
        """Returns the URLs of origins."""

    def relations(self, relation: RelationType, ids: Iterable[Id], reverse: bool) -> RowStream[tuple[Id, RelationData]]:
        """Returns the rows of a relation by their sources, or destinations if `reverse`."""

    def all_relations(self, relation: RelationType) -> RowStream[tuple[Id, RelationData]]:
        """Returns all rows of a relation."""

    def all_entities(self, entity: EntityType) -> RowStream[Id]:
        """Returns the ids of all entities of a type, those that other rows name included, each once."""

    def all_locations(self) -> RowStream[Path]:
        """Returns all paths, those of relations included, each once."""

    def first_occurrence(self, content: Id) -> RowStream[ProvenanceResult]:
        """Returns the earliest occurrence of a content, if there is one."""

    def all_occurrences(self, content: Id, limit: int | None) -> RowStream[ProvenanceResult]:
        """Returns the occurrences of a content, in their order."""


class DatabaseStorage(ABC):
    """The reads and writes of a `LocalStorage`, over what a database does for it.

    A write is committed when it returns True; it raises `StorageError` otherwise, never returns False, and may then be
    repeated where the error is retryable. `content_find_all` and the `*_get_all` are streamed reads.
    """

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def open(self) -> None:
        """Connects."""

    @abstractmethod
    def close(self) -> None:
        """Gives everything back."""

    @property
    @abstractmethod
    def _by_id(self) -> Reads:
        """The reads by id."""

    @property
    @abstractmethod
    def _streamed(self) -> Reads:
        """The streamed reads; they never make a read by id wait."""

    @abstractmethod
    def _write(self, name: str, rows: Sequence[Row]) -> None:
        """Merges rows into what is stored.

        Args:
            name: of an entity or a relation, or `LOCATION`.
            rows: as `rows.merged` returns them; none is fine.
        """

    def write_rows(self, name: str, rows: Sequence[Row]) -> bool:
        self._write(name, merged(name, rows))
        return True

    def content_add(self, cnts: Iterable[Id] | Mapping[Id, datetime | None]) -> bool:
        return self.write_rows(EntityType.CONTENT, dated_rows(cnts))

    def directory_add(self, dirs: Iterable[Id] | Mapping[Id, datetime | None]) -> bool:
        return self.write_rows(EntityType.DIRECTORY, dated_rows(dirs))

    def location_add(self, paths: Iterable[Path]) -> bool:
        return self.write_rows(LOCATION, location_rows(paths))

    def origin_add(self, orgs: Mapping[Id, str]) -> bool:
        return self.write_rows(EntityType.ORIGIN, origin_rows(orgs))

    def revision_add(self, revs: Iterable[Id] | Mapping[Id, RevisionData]) -> bool:
        return self.write_rows(EntityType.REVISION, revision_rows(revs))

    def relation_add(self, relation: RelationType, data: Mapping[Id, set[RelationData]]) -> bool:
        relation = check_relation(relation)
        return self.write_rows(relation, relation_rows(relation, data))

    def content_get(self, ids: Iterable[Id]) -> dict[Id, datetime]:
        return {entry_id: to_date(date) for entry_id, date in _rows(self._by_id.contents(ids))}

    def directory_get(self, ids: Iterable[Id]) -> dict[Id, datetime]:
        return {entry_id: to_date(date) for entry_id, date in _rows(self._by_id.directories(ids))}

    def revision_get(self, ids: Iterable[Id]) -> dict[Id, RevisionData]:
        return dict(_rows(self._by_id.revisions(ids)))

    def origin_get(self, ids: Iterable[Id]) -> dict[Id, str]:
        return dict(_rows(self._by_id.origins(ids)))

    def relation_get(
        self, relation: RelationType, ids: Iterable[Id], reverse: bool = False
    ) -> dict[Id, set[RelationData]]:
        return _by_source(self._by_id.relations(relation, ids, reverse))

    def relation_get_all(self, relation: RelationType) -> dict[Id, set[RelationData]]:
        return _by_source(self._streamed.all_relations(relation))

    def entity_get_all(self, entity: EntityType) -> set[Id]:
        return set(_rows(self._streamed.all_entities(entity)))

    def location_get_all(self) -> set[Path]:
        return set(_rows(self._streamed.all_locations()))

    def content_find_first(self, id: Id) -> ProvenanceResult | None:
        return next(iter([*_rows(self._by_id.first_occurrence(id))]), None)

    def content_find_all(self, id: Id, limit: int | None = None) -> Generator[ProvenanceResult, None, None]:
        return _rows(self._streamed.all_occurrences(id, limit))

    def with_path(self) -> bool:
        return True

    def content_get_stream(self, ids: Iterable[Id]) -> RowStream[tuple[Id, int]]:
        return self._streamed.contents(ids)

    def directory_get_stream(self, ids: Iterable[Id]) -> RowStream[tuple[Id, int]]:
        return self._streamed.directories(ids)

    def revision_get_stream(self, ids: Iterable[Id]) -> RowStream[tuple[Id, RevisionData]]:
        return self._streamed.revisions(ids)

    def origin_get_stream(self, ids: Iterable[Id]) -> RowStream[tuple[Id, str]]:
        return self._streamed.origins(ids)

    def relation_get_stream(
        self, relation: RelationType, ids: Iterable[Id], reverse: bool = False
    ) -> RowStream[tuple[Id, RelationData]]:
        return self._streamed.relations(relation, ids, reverse)

    def relation_get_all_stream(self, relation: RelationType) -> RowStream[tuple[Id, RelationData]]:
        return self._streamed.all_relations(relation)

    def entity_get_all_stream(self, entity: EntityType) -> RowStream[Id]:
        return self._streamed.all_entities(entity)

    def location_get_all_stream(self) -> RowStream[Path]:
        return self._streamed.all_locations()

    def content_find_all_stream(self, id: Id, limit: int | None = None) -> RowStream[ProvenanceResult]:
        return self._streamed.all_occurrences(id, limit)


def _rows(stream: RowStream[T]) -> Generator[T, None, None]:
    with stream:
        yield from chain.from_iterable(stream)


def _by_source(stream: RowStream[tuple[Id, RelationData]]) -> dict[Id, set[RelationData]]:
    found: dict[Id, set[RelationData]] = {}
    for src, data in _rows(stream):
        found.setdefault(src, set()).add(data)
    return found
