"""Version, clock and dangerous settings of a PostgreSQL server."""

from __future__ import annotations

from typing import Final

from psycopg2.extensions import cursor

from provgate_storage.database.local import Danger, StorageFacts

# https://www.postgresql.org/docs/current/runtime-config-wal.html
_DANGERS: Final = (
    Danger(
        "fsync",
        "off",
        "a crash of the machine may destroy the database, and acked rows with it",
        "ALTER SYSTEM RESET fsync; SELECT pg_reload_conf();",
    ),
    Danger(
        "full_page_writes",
        "off",
        "a crash of the machine may leave pages half written, and the database damaged",
        "ALTER SYSTEM RESET full_page_writes; SELECT pg_reload_conf();",
    ),
    Danger(
        "synchronous_commit",
        "off",
        "a crash of the server loses the rows acked in the last moments before it",
        "ALTER SYSTEM RESET synchronous_commit; SELECT pg_reload_conf(); and the same where the role, the database or"
        " the options of storage_config.db set it",
    ),
)


def inspect(open_cursor: cursor) -> StorageFacts:
    """Returns what the server says in the session of a cursor. It takes no rights."""
    open_cursor.execute("SELECT current_setting('server_version'), clock_timestamp()")
    ((version, now),) = open_cursor.fetchall()
    names = [danger.setting for danger in _DANGERS]
    open_cursor.execute("SELECT name, current_setting(name) FROM unnest(%s) name", (names,))
    values = dict(open_cursor.fetchall())
    dangers = tuple(danger for danger in _DANGERS if values[danger.setting] == danger.value)
    return StorageFacts(f"PostgreSQL {version}", now, dangers)
