"""What workers and gateway need of a storage that holds the data itself, beside the interface."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self, TypeVar, runtime_checkable

from provgate_storage.facts import StorageFacts
from provgate_storage.interface import ProvenanceStorageInterface
from provgate_storage.model import EntityType, Id, Path, ProvenanceResult, RelationData, RelationType, RevisionData
from provgate_storage.rows import Row

T = TypeVar("T")


class RowStream(Protocol[T]):
    """The rows of one read, in chunks, all of one snapshot.

    A context manager that closes itself. It belongs to the thread that iterates it, `cancel` excepted.

    Attributes:
        is_over: whether the chunk yielded last is known to be the last.
    """

    is_over: bool

    def __enter__(self) -> Self: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def __iter__(self) -> Iterator[list[T]]:
        """Yields chunks of rows, none of them empty. The query starts with the first one."""

    def cancel(self) -> None:
        """Ends the query from any thread: the thread that iterates gets `StorageUnavailableError` or the end."""

    def close(self) -> None:
        """Ends the query and gives its connection back. Does nothing the second time."""


class RowStorage(Protocol):
    """What takes the rows of packages."""

    def write_rows(self, name: str, rows: Sequence[Row]) -> bool:
        """Writes rows of one kind in one transaction, as the interface's writes do: what a worker does with packages.

        Args:
            name: of an entity or a relation, or `rows.LOCATION`.
            rows: as `rows` describes them. Valid: nothing is checked again. In any order, and of any key any number of
                times: they are merged.
        """


@runtime_checkable
class LocalStorage(ProvenanceStorageInterface, RowStorage, Protocol):
    """A storage over a database.

    Beside the interface: reads as streams, and what a program asks of its database when it starts and while it runs.
    A write raises `RetryableStorageError`, `DataRefusedError` or `SchemaMismatchError` where the interface's contract
    would let it return False, so that a worker knows what to do.

    The class takes, beside settings of its own, what programs set where the configuration does not: `application_name`,
    and how many writes (`write_connections`), unary reads (`read_connections`) and streamed reads
    (`stream_connections`) run at once.
    """

    def setup(self, range_counts: Mapping[str, int]) -> None:
        """Creates schema and indexes where they are missing, and records range counts where none are recorded.

        Programs that call it at once agree afterwards, or all but those with the counts that are recorded raise.

        Args:
            range_counts: of each exchange.

        Raises:
            SchemaMismatchError: the database holds another version of the schema, or other range counts.
        """

    def replace_range_counts(self, range_counts: Mapping[str, int]) -> None:
        """Records the range count of each exchange in place of those recorded. No program that has those may run.

        Raises:
            SchemaMismatchError: the schema is missing, or another version.
        """

    def check(self, range_counts: Mapping[str, int] | None) -> None:
        """Compares version and range counts with what the database records; None compares the version alone.

        Raises:
            NotSetUpError: there is no schema, or a part of it is missing.
            SchemaMismatchError: they differ; the text says what differs and what to do.
        """

    def recorded_range_counts(self) -> dict[str, int] | None:
        """Returns the range count of each exchange that was recorded last; None where there is no schema."""

    def probe(self) -> None:
        """Makes one round trip to the database. Raises `StorageUnavailableError` where it fails."""

    def inspect(self) -> StorageFacts:
        """Returns what the database tells of itself: version, clock, settings that endanger what is acked. Reads only.

        Raises:
            StorageError: it does not answer.
        """

    def content_get_stream(self, ids: Iterable[Id]) -> RowStream[tuple[Id, int]]:
        """`content_get` as a stream, the dates in microseconds since 1970-01-01T00:00:00Z."""

    def directory_get_stream(self, ids: Iterable[Id]) -> RowStream[tuple[Id, int]]:
        """`directory_get` as a stream, the dates in microseconds since 1970-01-01T00:00:00Z."""

    def revision_get_stream(self, ids: Iterable[Id]) -> RowStream[tuple[Id, RevisionData]]:
        """`revision_get` as a stream."""

    def origin_get_stream(self, ids: Iterable[Id]) -> RowStream[tuple[Id, str]]:
        """`origin_get` as a stream."""

    def relation_get_stream(
        self, relation: RelationType, ids: Iterable[Id], reverse: bool = False
    ) -> RowStream[tuple[Id, RelationData]]:
        """`relation_get` as a stream of (source, row)."""

    def relation_get_all_stream(self, relation: RelationType) -> RowStream[tuple[Id, RelationData]]:
        """`relation_get_all` as a stream of (source, row)."""

    def entity_get_all_stream(self, entity: EntityType) -> RowStream[Id]:
        """`entity_get_all` as a stream."""

    def location_get_all_stream(self) -> RowStream[Path]:
        """`location_get_all` as a stream."""

    def content_find_all_stream(self, id: Id, limit: int | None = None) -> RowStream[ProvenanceResult]:
        """`content_find_all` as a stream."""
