"""What PostgreSQL tells of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from psycopg2.extensions import cursor

from provgate_storage.database.local import Danger, StorageFacts


@dataclass(frozen=True, slots=True)
class _Guard:
    """A setting that must not be off, and what may happen while it is."""

    harm: str
    remedy: str


# https://www.postgresql.org/docs/current/runtime-config-wal.html
_GUARDS: Final = {
    "fsync": _Guard(
        "a crash of the machine may destroy the database, rows that were acked with it",
        "ALTER SYSTEM RESET fsync; SELECT pg_reload_conf();",
    ),
    "full_page_writes": _Guard(
        "a crash of the machine may leave pages that are half written, and the database damaged",
        "ALTER SYSTEM RESET full_page_writes; SELECT pg_reload_conf();",
    ),
    "synchronous_commit": _Guard(
        "rows that were acked in the last moments before a crash of the server are lost",
        "ALTER SYSTEM RESET synchronous_commit; SELECT pg_reload_conf(); and the same where the role, the database or"
        " the options of storage_config.db set it",
    ),
}

_OFF: Final = "off"


def inspect(open_cursor: cursor) -> StorageFacts:
    """Returns what the server tells, as the session of a cursor has it. It takes no right."""
    open_cursor.execute("SELECT current_setting('server_version'), clock_timestamp()")
    ((version, now),) = open_cursor.fetchall()
    open_cursor.execute("SELECT name, current_setting(name) FROM unnest(%s) name", (list(_GUARDS),))
    dangers = [Danger(name, value, _GUARDS[name].harm, _GUARDS[name].remedy) for name, value in open_cursor]
    return StorageFacts(f"PostgreSQL {version}", now, tuple(danger for danger in dangers if danger.value == _OFF))
