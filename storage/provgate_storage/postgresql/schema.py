"""The versioned schema: its creation, and its comparison with what a program expects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from psycopg2.extensions import cursor

from provgate_storage.expected import (
    VERSION,
    check_nothing_missing,
    check_range_counts,
    check_version,
    no_schema,
    not_ours,
)
from provgate_storage.postgresql.tables import definitions

# Any number that is the same in every program: "provgate" in ASCII.
_SETUP_LOCK: Final = int.from_bytes(b"provgate")


def set_up(open_cursor: cursor, range_counts: Mapping[str, int]) -> None:
    """Creates what is missing and records the range counts where none are, in the transaction of a cursor.

    Of several programs that do so at once, one does it and the others find it done.

    Raises:
        SchemaMismatchError: another version, the tables of somebody else, or other range counts are there.
    """
    _lock(open_cursor)
    missing = _missing(open_cursor)
    if "schema_version" not in missing:
        _check_version(open_cursor)
    elif len(missing) < len(definitions()):
        raise not_ours(definitions().keys() - missing, "tables")
    for name, statement in definitions().items():
        # Not IF NOT EXISTS: creating an index waits for the writers of its table before it looks whether there is one.
        if name in missing:
            open_cursor.execute(statement)
    if "schema_version" in missing:
        open_cursor.execute("INSERT INTO schema_version (version) VALUES (%s)", (VERSION,))
    if not _range_counts(open_cursor):
        _record(open_cursor, range_counts)
    check(open_cursor, range_counts)


def replace_range_counts(open_cursor: cursor, range_counts: Mapping[str, int]) -> None:
    """Records range counts in place of those that are recorded, in the transaction of a cursor.

    Raises:
        SchemaMismatchError: the schema is not what is expected.
    """
    _lock(open_cursor)
    check(open_cursor, None)
    _record(open_cursor, range_counts)


def check(open_cursor: cursor, range_counts: Mapping[str, int] | None) -> None:
    """Compares version, tables and, unless they are None, range counts with those of the database.

    Raises:
        NotSetUpError: there is no schema, or a part of it is missing.
        SchemaMismatchError: they differ; the text says what differs and what to do.
    """
    missing = _missing(open_cursor)
    if "schema_version" in missing:
        raise no_schema()
    _check_version(open_cursor)
    check_nothing_missing(missing)
    if range_counts is not None:
        check_range_counts(_range_counts(open_cursor), range_counts)


def recorded_range_counts(open_cursor: cursor) -> dict[str, int] | None:
    """Returns the recorded range count of each exchange; None where there is no schema."""
    return None if "exchange_range" in _missing(open_cursor) else _range_counts(open_cursor)


def _lock(open_cursor: cursor) -> None:
    # Another program's set-up takes as long as its indexes do. The limit is back for the locks of tables: a statement
    # that waits for one has all later writers wait behind it.
    open_cursor.execute("SET LOCAL lock_timeout = 0")
    open_cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_SETUP_LOCK,))
    open_cursor.execute("SET LOCAL lock_timeout TO DEFAULT")


def _missing(open_cursor: cursor) -> set[str]:
    open_cursor.execute("SELECT name FROM unnest(%s) name WHERE to_regclass(name) IS NULL", (list(definitions()),))
    return {name for (name,) in open_cursor}


def _check_version(open_cursor: cursor) -> None:
    open_cursor.execute("SELECT version FROM schema_version")
    check_version([version for (version,) in open_cursor])


def _range_counts(open_cursor: cursor) -> dict[str, int]:
    open_cursor.execute("SELECT exchange, range_count FROM exchange_range")
    return dict(open_cursor.fetchall())


def _record(open_cursor: cursor, range_counts: Mapping[str, int]) -> None:
    open_cursor.execute("DELETE FROM exchange_range")
    open_cursor.execute(
        "INSERT INTO exchange_range (exchange, range_count) SELECT * FROM unnest(%s::text[], %s::integer[])",
        (list(range_counts), list(range_counts.values())),
    )
