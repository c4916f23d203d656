"""The database of a subject: emptied before a run, idle at its start, checked after its end."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol, Self

from bench.writes.expected import Rows, WrongRowsError
from provgate_storage.registry import local_storage


class Database(Protocol):
    """A database with the schema in place. A context manager that disconnects. Not thread-safe."""

    @property
    def storage_config(self) -> dict[str, Any]:
        """The arguments of `get_provenance_storage`."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def beside(self, name: str) -> Self:
        """Creates another database on the same server, with the same range counts, and returns it."""

    def quiet(self) -> None:
        """Turns off background work of the server, which would be charged to the running subject."""

    def empty(self) -> None:
        """Empties all tables."""

    def rest(self) -> None:
        """Writes everything to its final place, so that no checkpoint falls into a run."""

    def gather_statistics(self) -> None:
        """Updates the planner's statistics, as a database in use does from time to time."""

    def fill(self, count: int) -> None:
        """Adds `count` contents and `count` rows of CNT_EARLY_IN_REV, with ids all over the id space."""

    def counts(self) -> dict[str, int]:
        """Returns the number of rows of every table."""

    def sizes_bytes(self) -> dict[str, int]:
        """Returns the disk space of each table with rows, indexes included."""

    def rows(self, table: str, keys: Collection[bytes] | None) -> Rows:
        """Returns the rows of a table that begin with one of the keys; all rows if None."""


def check_rows(database: Database, expected: Mapping[str, Rows], stored: Mapping[str, int]) -> None:
    """Compares every written row, and the number of all rows.

    Args:
        database: the database after the writes.
        expected: the written rows, by table.
        stored: the number of other rows that each table had before; 0 if it is not named.

    Raises:
        WrongRowsError: a row is missing, different, or one too many.
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
