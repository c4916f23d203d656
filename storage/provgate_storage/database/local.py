"""What workers and gateway need of a storage that holds the data itself, beside the interface."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Final, Protocol, Self, TypeVar, runtime_checkable

from provgate_storage.errors import NotSetUpError, SchemaMismatchError
from provgate_storage.interface import ProvenanceStorageInterface
from provgate_storage.model import EntityType, Id, Path, ProvenanceResult, RelationData, RelationType, RevisionData
from provgate_storage.rows.rows import Row


@dataclass(frozen=True, slots=True)
class Danger:
    """A setting under which what was acked may be lost.

    Attributes:
        setting: its name, as the database has it.
        value: what it is set to.
        harm: what may happen.
        remedy: what mends it: a command, or what to change where.
    """

    setting: str
    value: str
    harm: str
    remedy: str


@dataclass(frozen=True, slots=True)
class StorageFacts:
    """A database server, as a program of ours sees it.

    Attributes:
        server: its name and version.
        now: its clock, when it answered.
        dangers: settings that endanger what is acked; none is known where the user may not see them.
    """

    server: str
    now: datetime
    dangers: tuple[Danger, ...]


VERSION: Final = 1
"""The version of the schema of this program. Every storage has schemas of its own under one number."""

_SETUP_COMMAND: Final = "`provgate-workers setup`"


def no_schema() -> NotSetUpError:
    """Returns the error of a database that was never set up."""
    return NotSetUpError(f"the database has no schema: run {_SETUP_COMMAND}")


def not_ours(names: Iterable[str], what: str) -> SchemaMismatchError:
    """Returns the error of a database that holds, say, tables of somebody else under our names."""
    there = ", ".join(sorted(names))
    return SchemaMismatchError(f"the database holds {what} that are not provgate's ({there}): give it its own one")


def check_version(found: Sequence[object]) -> None:
    """Compares the versions that the database records, one unless somebody changed it, with `VERSION`.

    Raises:
        SchemaMismatchError: they differ; the text says what to do.
    """
    if found == [VERSION]:
        return
    if len(found) == 1 and isinstance(found[0], int) and found[0] > VERSION:
        raise SchemaMismatchError(
            f"the database holds version {found[0]} of the schema, newer than version {VERSION} of this program: "
            "upgrade the program"
        )
    raise SchemaMismatchError(
        f"the database holds no version of the schema that is known ({found}), version {VERSION} is expected: "
        "restore it, or give the program an empty database"
    )


def check_nothing_missing(missing: Iterable[str]) -> None:
    """Raises `NotSetUpError` where the database lacks, say, an index."""
    names = ", ".join(sorted(missing))
    if names:
        raise NotSetUpError(f"the database lacks {names}: run {_SETUP_COMMAND}")


def check_range_counts(recorded: Mapping[str, int], expected: Mapping[str, int]) -> None:
    """Raises `SchemaMismatchError` where the range counts of exchanges differ; the text says which."""
    differing = [
        f"{exchange}: {recorded.get(exchange, 'none')} recorded, {expected.get(exchange, 'none')} configured"
        for exchange in sorted(recorded.keys() | expected.keys())
        if recorded.get(exchange) != expected.get(exchange)
    ]
    if differing:
        raise SchemaMismatchError(
            f"the range counts differ from those of the database ({'; '.join(differing)}): "
            f"configure every program alike, or change them with {_SETUP_COMMAND}"
        )


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
