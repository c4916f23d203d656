"""The database of a subject: emptied before a run, at rest when it starts, looked into when it is done."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from bench.writes.expected import Rows, WrongRowsError
from provgate_storage.registry import local_storage


class Database(Protocol):
    """A database with the schema in place. A context manager that disconnects. Not thread-safe."""

    @property
    def storage_config(self) -> dict[str, Any]:
        """What `get_provenance_storage` takes."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def beside(self, name: str) -> Self:
        """Makes another database on the same server, set up with the same range counts, and returns it."""

    def quiet(self) -> None:
        """Turns off what the server does by itself: it would be charged to whichever subject runs at that moment."""

    def empty(self) -> None:
        """Empties all tables."""

    def rest(self) -> None:
        """Returns when what was written is where it stays, so that no checkpoint of it falls into a run."""

    def gather_statistics(self) -> None:
        """Has the planner know the tables as they are, which is done from time to time where a database lives."""

    def fill(self, count: int) -> None:
        """Adds so many contents, and as many rows of CNT_EARLY_IN_REV, with ids all over the id space."""

    def counts(self) -> dict[str, int]:
        """Returns the number of rows of every table."""

    def sizes_bytes(self) -> dict[str, int]:
        """Returns what each table takes on disk that has rows, its indexes included."""

    def rows(self, table: str, keys: Collection[bytes] | None) -> Rows:
        """Returns the rows of a table that begin with one of some keys; all of them where None."""


def check_rows(database: Database, expected: Mapping[str, Rows], stored: Mapping[str, int]) -> None:
    """Compares every row that was written, and how many there are of all.

    Args:
        database: after the writes.
        expected: the rows that were written, by table.
        stored: how many other rows each table held before; none where it is not named.

    Raises:
        WrongRowsError: a row is missing, too many, or another one.
    """
    for table, count in database.counts().items():
        wanted, others = expected.get(table, set()), stored.get(table, 0)
        found = database.rows(table, {row[0] for row in wanted} if others else None)
        if found != wanted:
            raise WrongRowsError(f"{table}: {len(found ^ wanted)} rows are missing or should not be there")
        if count != others + len(wanted):
            raise WrongRowsError(f"{table} holds {count} rows and not {others + len(wanted)}")


def set_up_like(database: Database, other: Database) -> None:
    """Creates the schema, with the range counts of another database."""
    with (
        local_storage(other.storage_config, "bench") as theirs,
        local_storage(database.storage_config, "bench") as ours,
    ):
        ours.setup(theirs.recorded_range_counts() or {})
