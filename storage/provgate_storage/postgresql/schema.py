"""The tables and indexes, their creation, and their comparison with what a program expects.

Ids are keys as they are: a row is written without a look at any other table. A path is kept beside the ids that it
belongs to. Its part of a key is `PATH_KEY`, since an entry of a btree has at most 2,704 bytes: a path of less than 32
bytes stands for itself, a longer one is represented by its SHA-256, which has 32 bytes. No two paths have one key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from psycopg2.extensions import cursor

from provgate_storage.database.schema import (
    VERSION,
    check_nothing_missing,
    check_range_counts,
    check_version,
    no_schema,
    not_ours,
)
from provgate_storage.model import EntityType, RelationType
from provgate_storage.rows.rows import LOCATION

PATH_KEY: Final = "(CASE WHEN octet_length(path) < 32 THEN path ELSE sha256(path) END)"


class ColumnType(Enum):
    """The types of columns; the values are PostgreSQL's names."""

    BYTES = "bytea"
    DATE = "timestamp with time zone"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Table:
    """A table that rows are written to.

    Attributes:
        name: of the table.
        columns: name and type of each, in the order of the values of a row.
        on_conflict: what happens to a row whose key is stored.
    """

    name: str
    columns: tuple[tuple[str, ColumnType], ...]
    on_conflict: str = "DO NOTHING"


_EARLIER: Final = "EXCLUDED.date < stored.date OR (stored.date IS NULL AND EXCLUDED.date IS NOT NULL)"
_DATE_CONFLICT: Final = f"(id) DO UPDATE SET date = EXCLUDED.date WHERE {_EARLIER}"
_REVISION_CONFLICT: Final = (
    "(id) DO UPDATE SET date = LEAST(stored.date, EXCLUDED.date), origin = COALESCE(EXCLUDED.origin, stored.origin) "
    f"WHERE {_EARLIER} OR (EXCLUDED.origin IS NOT NULL AND EXCLUDED.origin IS DISTINCT FROM stored.origin)"
)
_ID: Final = ("id", ColumnType.BYTES)
_DATE: Final = ("date", ColumnType.DATE)
_PATH: Final = ("path", ColumnType.BYTES)
_RELATION: Final = (("src", ColumnType.BYTES), ("dst", ColumnType.BYTES), _PATH)

TABLES: Final[dict[str, Table]] = {
    EntityType.CONTENT: Table(EntityType.CONTENT, (_ID, _DATE), _DATE_CONFLICT),
    EntityType.DIRECTORY: Table(EntityType.DIRECTORY, (_ID, _DATE), _DATE_CONFLICT),
    EntityType.REVISION: Table(EntityType.REVISION, (_ID, _DATE, ("origin", ColumnType.BYTES)), _REVISION_CONFLICT),
    EntityType.ORIGIN: Table(EntityType.ORIGIN, (_ID, ("url", ColumnType.TEXT))),
    LOCATION: Table(LOCATION, (_PATH,)),
} | {relation: Table(relation, _RELATION if relation.has_path else _RELATION[:2]) for relation in RelationType}
"""The tables by the names of what they hold."""


def definitions() -> dict[str, str]:
    """Returns the statement that creates each table and index, by its name, in the order to run them."""
    statements = {
        "schema_version": "CREATE TABLE schema_version (version integer NOT NULL)",
        "exchange_range": "CREATE TABLE exchange_range (exchange text PRIMARY KEY, range_count integer NOT NULL)",
        "content": "CREATE TABLE content (id bytea PRIMARY KEY, date timestamptz)",
        "directory": "CREATE TABLE directory (id bytea PRIMARY KEY, date timestamptz)",
        "revision": "CREATE TABLE revision (id bytea PRIMARY KEY, date timestamptz, origin bytea)",
        "origin": "CREATE TABLE origin (id bytea PRIMARY KEY, url text NOT NULL)",
        "location": "CREATE TABLE location (path bytea NOT NULL)",
        "location_key": f"CREATE UNIQUE INDEX location_key ON location ({PATH_KEY})",
    }
    for relation in RelationType:
        columns, key = "src bytea NOT NULL, dst bytea NOT NULL", "src, dst"
        if relation.has_path:
            columns, key = f"{columns}, path bytea NOT NULL", f"{key}, {PATH_KEY}"
        statements[f"{relation}"] = f"CREATE TABLE {relation} ({columns})"
        statements[f"{relation}_key"] = f"CREATE UNIQUE INDEX {relation}_key ON {relation} ({key})"
        statements[f"{relation}_dst"] = f"CREATE INDEX {relation}_dst ON {relation} (dst)"
    return statements


# Any number that is the same in every program: "provgate" in ASCII.
_SETUP_LOCK: Final = int.from_bytes(b"provgate")


def set_up(open_cursor: cursor, range_counts: Mapping[str, int]) -> None:
    """Creates what is missing, and records the range counts if none are recorded, in the transaction of a cursor.

    If several programs do so at once, one creates and the others find everything there.

    Raises:
        SchemaMismatchError: the database holds another version, another program's tables, or other range counts.
    """
    _lock(open_cursor)
    missing = _missing(open_cursor)
    if "schema_version" not in missing:
        check_version(_versions(open_cursor))
    elif len(missing) < len(definitions()):
        raise not_ours(definitions().keys() - missing, "tables")
    for name, statement in definitions().items():
        # Not IF NOT EXISTS: CREATE INDEX waits for the writers of its table before it checks that.
        if name in missing:
            open_cursor.execute(statement)
    if "schema_version" in missing:
        open_cursor.execute("INSERT INTO schema_version (version) VALUES (%s)", (VERSION,))
    if not _range_counts(open_cursor):
        _record(open_cursor, range_counts)
    check(open_cursor, range_counts)


def replace_range_counts(open_cursor: cursor, range_counts: Mapping[str, int]) -> None:
    """As `LocalStorage.replace_range_counts`, in the transaction of a cursor."""
    _lock(open_cursor)
    check(open_cursor, None)
    _record(open_cursor, range_counts)


def check(open_cursor: cursor, range_counts: Mapping[str, int] | None) -> None:
    """As `LocalStorage.check`, in the transaction of a cursor."""
    missing = _missing(open_cursor)
    if "schema_version" in missing:
        raise no_schema()
    check_version(_versions(open_cursor))
    check_nothing_missing(missing)
    check_range_counts(_range_counts(open_cursor), range_counts)


def recorded_range_counts(open_cursor: cursor) -> dict[str, int] | None:
    """As `LocalStorage.recorded_range_counts`, in the transaction of a cursor."""
    return None if "exchange_range" in _missing(open_cursor) else _range_counts(open_cursor)


def _lock(open_cursor: cursor) -> None:
    # Another program's set-up may take long, so this lock has no time limit. The locks of tables have one: a statement
    # that waits for a table makes all later writers wait behind it.
    open_cursor.execute("SET LOCAL lock_timeout = 0")
    open_cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_SETUP_LOCK,))
    open_cursor.execute("SET LOCAL lock_timeout TO DEFAULT")


def _missing(open_cursor: cursor) -> set[str]:
    open_cursor.execute("SELECT name FROM unnest(%s) name WHERE to_regclass(name) IS NULL", (list(definitions()),))
    return {name for (name,) in open_cursor}


def _versions(open_cursor: cursor) -> list[object]:
    open_cursor.execute("SELECT version FROM schema_version")
    return [version for (version,) in open_cursor]


def _range_counts(open_cursor: cursor) -> dict[str, int]:
    open_cursor.execute("SELECT exchange, range_count FROM exchange_range")
    return dict(open_cursor.fetchall())


def _record(open_cursor: cursor, range_counts: Mapping[str, int]) -> None:
    open_cursor.execute("DELETE FROM exchange_range")
    open_cursor.execute(
        "INSERT INTO exchange_range (exchange, range_count) SELECT * FROM unnest(%s::text[], %s::integer[])",
        (list(range_counts), list(range_counts.values())),
    )
