"""The contract of everything that stores provenance or reaches a store of it."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from provgate_storage.model import EntityType, Id, Path, ProvenanceResult, RelationData, RelationType, RevisionData


@runtime_checkable
class ProvenanceStorageInterface(Protocol):
    """A provenance index.

    A context manager: `open()` on enter, `close()` on exit. An open storage may be used from many threads at once.

    Values: an id is 20 bytes; a path is 0 to 4096 bytes without NUL; a URL is 1 to 8192 bytes of UTF-8 without NUL; a
    date is timezone-aware and comes back in UTC, floored to microseconds. If an argument is invalid, a method raises
    `InvalidValueError`, and stores or reads nothing.

    A write returns True when everything is committed, and False when the same call may be tried again. Writes are
    idempotent. Their order does not matter for dates and sets: of two dates the earlier stays, sets grow. A read that
    starts after a write has returned True sees it.
    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def open(self) -> None:
        """Connects. Does nothing if the storage is open."""

    def close(self) -> None:
        """Releases all resources. Does nothing if the storage is closed. It may be opened again."""

    def content_add(self, cnts: Iterable[Id] | Mapping[Id, datetime | None]) -> bool:
        """Adds contents, with their dates if a mapping gives them. None never replaces a date."""

    def directory_add(self, dirs: Iterable[Id] | Mapping[Id, datetime | None]) -> bool:
        """Adds directories, with their dates if a mapping gives them. None never replaces a date."""

    def location_add(self, paths: Iterable[Path]) -> bool:
        """Adds paths to the set of locations."""

    def origin_add(self, orgs: Mapping[Id, str]) -> bool:
        """Adds origins with their URLs. The first URL that is stored for an id stays."""

    def revision_add(self, revs: Iterable[Id] | Mapping[Id, RevisionData]) -> bool:
        """Adds revisions.

        The earliest date stays; an origin that is not None replaces the preferred origin; None changes nothing. The
        origin need not be known.
        """

    def relation_add(self, relation: RelationType, data: Mapping[Id, set[RelationData]]) -> bool:
        """Adds rows, by source id, to a relation.

        Neither end needs to be known: `entity_get_all` and `location_get_all` see the entities and paths that a row
        names.
        """

    def content_get(self, ids: Iterable[Id]) -> dict[Id, datetime]:
        """Returns the dates of those contents that have one."""

    def directory_get(self, ids: Iterable[Id]) -> dict[Id, datetime]:
        """Returns the dates of those directories that have one."""

    def revision_get(self, ids: Iterable[Id]) -> dict[Id, RevisionData]:
        """Returns date and preferred origin of those revisions that have one or both."""

    def origin_get(self, ids: Iterable[Id]) -> dict[Id, str]:
        """Returns the URLs of those origins that are known."""

    def relation_get(
        self, relation: RelationType, ids: Iterable[Id], reverse: bool = False
    ) -> dict[Id, set[RelationData]]:
        """Returns the rows of a relation, by source id, whose source, or destination if `reverse`, is in `ids`."""

    def relation_get_all(self, relation: RelationType) -> dict[Id, set[RelationData]]:
        """Returns all rows of a relation, by source id."""

    def entity_get_all(self, entity: EntityType) -> set[Id]:
        """Returns the ids of all entities of a type, also of those that only relations or preferred origins name."""

    def location_get_all(self) -> set[Path]:
        """Returns all paths, also those that only relations name."""

    def content_find_first(self, id: Id) -> ProvenanceResult | None:
        """Returns the earliest occurrence of a content over CNT_EARLY_IN_REV, or None.

        Earliest in the order of (date, revision, origin, path). A revision without a date does not count.
        """

    def content_find_all(self, id: Id, limit: int | None = None) -> Generator[ProvenanceResult, None, None]:
        """Yields the occurrences of a content, each once, in the order of (date, revision, origin, path).

        They are the rows of CNT_EARLY_IN_REV, and those of CNT_IN_DIR joined with DIR_IN_REV. The path of a joined row
        is the directory's path, "/", and the path in the directory; a directory at "" or "." adds nothing. A revision
        without a date does not count.

        Args:
            id: the content's id.
            limit: the largest number of occurrences, at least 1; None for all.

        Closing the generator ends the query behind it.
        """

    def with_path(self) -> bool:
        """Returns whether paths are kept."""
