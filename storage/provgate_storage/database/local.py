"""A storage that holds the data itself, in a database: what workers and gateway need beside the interface.

`LocalStorage` checks arguments, merges rows and collects streams. A database adds the abstract methods.
"""

# ruff: noqa: D102 - the interface documents its methods

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from types import TracebackType
from typing import Protocol, Self, TypeVar

from provgate_storage.database.reads import Reads, RowStream
from provgate_storage.model import EntityType, Id, Path, ProvenanceResult, RelationData, RelationType, RevisionData
from provgate_storage.rows.rows import (
    LOCATION,
    Row,
    checked_ids,
    dated_rows,
    location_rows,
    merged,
    origin_rows,
    relation_rows,
    revision_rows,
)
from provgate_storage.rows.values import check_entity, check_id, check_limit, check_relation, to_date

__all__ = ["Danger", "LocalStorage", "RowStorage", "RowStream", "StorageFacts"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Danger:
    """A setting of the database under which acked rows may be lost.

    Attributes:
        setting: its name in the database.
        value: its value.
        harm: what may happen.
        remedy: a command, or what to change where.
    """

    setting: str
    value: str
    harm: str
    remedy: str


@dataclass(frozen=True, slots=True)
class StorageFacts:
    """A database server as it describes itself.

    Attributes:
        server: its name and version.
        now: its clock, when it answered.
        dangers: the dangerous settings, as far as the user may see them.
    """

    server: str
    now: datetime
    dangers: tuple[Danger, ...]


class RowStorage(Protocol):
    """A storage that takes the rows of packages."""

    def write_rows(self, name: str, rows: Sequence[Row]) -> bool:
        """Writes rows of one kind, as the interface's writes do.

        Args:
            name: of an entity or a relation, or `rows.LOCATION`.
            rows: valid, as `rows` describes them; nothing is checked again. In any order; a key may occur any number of
                times: they are merged.
        """


class LocalStorage(ABC):
    """A `ProvenanceStorageInterface` and `RowStorage` over a database.

    Beside the interface: reads as streams, and what a program asks of its database when it starts and while it runs.

    A write is committed when it returns True. It never returns False: it raises `RetryableStorageError`,
    `DataRefusedError` or `SchemaMismatchError`, so that a worker knows what to do. `content_find_all` and the
    `*_get_all` are streamed reads; these and the reads by id never wait for each other.

    The class takes, beside settings of its own, what programs set where the configuration does not: `application_name`,
    and how many writes (`write_connections`), reads by id (`read_connections`) and streamed reads
    (`stream_connections`) run at once.
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
        """Connects; writes nothing and does not look at the schema, which `check` does.

        Raises:
            StorageUnavailableError: the database cannot be reached; the storage stays closed.
        """

    @abstractmethod
    def close(self) -> None:
        """Closes all connections."""

    @abstractmethod
    def setup(self, range_counts: Mapping[str, int]) -> None:
        """Creates what is missing of schema and indexes, and records range counts where none are recorded.

        Several programs may call it at once: all of them agree afterwards, except that those whose range counts differ
        from the recorded ones raise.

        Args:
            range_counts: of each exchange.

        Raises:
            SchemaMismatchError: the database holds another version of the schema, or other range counts.
        """

    @abstractmethod
    def replace_range_counts(self, range_counts: Mapping[str, int]) -> None:
        """Records the range count of each exchange in place of the recorded ones. No program may run with those.

        Raises:
            SchemaMismatchError: the schema is missing, or another version.
        """

    @abstractmethod
    def check(self, range_counts: Mapping[str, int] | None) -> None:
        """Compares version, schema and, unless they are None, range counts with those of the database.

        Raises:
            NotSetUpError: there is no schema, or a part of it is missing.
            SchemaMismatchError: they differ; the text says what differs and what to do.
        """

    @abstractmethod
    def recorded_range_counts(self) -> dict[str, int] | None:
        """Returns the recorded range count of each exchange; None if there is no schema."""

    @abstractmethod
    def probe(self) -> None:
        """Makes one round trip to the database. Raises `StorageUnavailableError` if it fails."""

    @abstractmethod
    def inspect(self) -> StorageFacts:
        """Returns version, clock and dangerous settings of the database. Raises `StorageError` if it fails."""

    @property
    @abstractmethod
    def _by_id(self) -> Reads:
        """The reads by id."""

    @property
    @abstractmethod
    def _streamed(self) -> Reads:
        """The streamed reads. They never make a read by id wait."""

    @abstractmethod
    def _write(self, name: str, rows: Sequence[Row]) -> None:
        """Merges rows with the stored ones.

        Args:
            name: of an entity or a relation, or `LOCATION`.
            rows: as `rows.merged` returns them; there may be none.
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
        stream = self._by_id.dates(EntityType.CONTENT, set(checked_ids(ids)))
        return {entry_id: to_date(date) for entry_id, date in _rows(stream)}

    def content_get_stream(self, ids: Iterable[Id]) -> RowStream[tuple[Id, int]]:
        """`content_get` as a stream, the dates in microseconds since 1970-01-01T00:00:00Z."""
        return self._streamed.dates(EntityType.CONTENT, set(checked_ids(ids)))

    def directory_get(self, ids: Iterable[Id]) -> dict[Id, datetime]:
        stream = self._by_id.dates(EntityType.DIRECTORY, set(checked_ids(ids)))
        return {entry_id: to_date(date) for entry_id, date in _rows(stream)}

    def directory_get_stream(self, ids: Iterable[Id]) -> RowStream[tuple[Id, int]]:
        """`directory_get` as a stream, the dates in microseconds since 1970-01-01T00:00:00Z."""
        return self._streamed.dates(EntityType.DIRECTORY, set(checked_ids(ids)))

    def revision_get(self, ids: Iterable[Id]) -> dict[Id, RevisionData]:
        return dict(_rows(self._by_id.revisions(set(checked_ids(ids)))))

    def revision_get_stream(self, ids: Iterable[Id]) -> RowStream[tuple[Id, RevisionData]]:
        """`revision_get` as a stream."""
        return self._streamed.revisions(set(checked_ids(ids)))

    def origin_get(self, ids: Iterable[Id]) -> dict[Id, str]:
        return dict(_rows(self._by_id.origins(set(checked_ids(ids)))))

    def origin_get_stream(self, ids: Iterable[Id]) -> RowStream[tuple[Id, str]]:
        """`origin_get` as a stream."""
        return self._streamed.origins(set(checked_ids(ids)))

    def relation_get(
        self, relation: RelationType, ids: Iterable[Id], reverse: bool = False
    ) -> dict[Id, set[RelationData]]:
        return _by_source(self._by_id.relations(check_relation(relation), set(checked_ids(ids)), reverse))

    def relation_get_stream(
        self, relation: RelationType, ids: Iterable[Id], reverse: bool = False
    ) -> RowStream[tuple[Id, RelationData]]:
        """`relation_get` as a stream of (source, row)."""
        return self._streamed.relations(check_relation(relation), set(checked_ids(ids)), reverse)

    def relation_get_all(self, relation: RelationType) -> dict[Id, set[RelationData]]:
        return _by_source(self.relation_get_all_stream(relation))

    def relation_get_all_stream(self, relation: RelationType) -> RowStream[tuple[Id, RelationData]]:
        """`relation_get_all` as a stream of (source, row)."""
        return self._streamed.all_relations(check_relation(relation))

    def entity_get_all(self, entity: EntityType) -> set[Id]:
        return set(_rows(self.entity_get_all_stream(entity)))

    def entity_get_all_stream(self, entity: EntityType) -> RowStream[Id]:
        """`entity_get_all` as a stream."""
        return self._streamed.all_entities(check_entity(entity))

    def location_get_all(self) -> set[Path]:
        return set(_rows(self.location_get_all_stream()))

    def location_get_all_stream(self) -> RowStream[Path]:
        """`location_get_all` as a stream."""
        return self._streamed.all_locations()

    def content_find_first(self, id: Id) -> ProvenanceResult | None:
        found = list(_rows(self._by_id.first_occurrence(check_id(id))))
        return found[0] if found else None

    def content_find_all(self, id: Id, limit: int | None = None) -> Generator[ProvenanceResult, None, None]:
        return _rows(self.content_find_all_stream(id, limit))

    def content_find_all_stream(self, id: Id, limit: int | None = None) -> RowStream[ProvenanceResult]:
        """`content_find_all` as a stream."""
        return self._streamed.all_occurrences(check_id(id), check_limit(limit))

    def with_path(self) -> bool:
        return True


def _rows(stream: RowStream[T]) -> Generator[T, None, None]:
    with stream:
        yield from chain.from_iterable(stream)


def _by_source(stream: RowStream[tuple[Id, RelationData]]) -> dict[Id, set[RelationData]]:
    found: dict[Id, set[RelationData]] = {}
    for src, data in _rows(stream):
        found.setdefault(src, set()).add(data)
    return found
