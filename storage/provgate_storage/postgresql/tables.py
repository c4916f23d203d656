"""The tables and indexes of the database, and what is written to each.

Ids are keys as they are: a row is written without a look at any other table. A path is kept beside the ids that it
belongs to. What makes it part of a key is `PATH_KEY`, since an entry of a btree ends at 2,704 bytes: a path of less
than 32 bytes stands for itself, a longer one is represented by its SHA-256, which is 32 bytes long. No two paths have
one key, whoever chose them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from provgate_storage.model import EntityType, RelationType
from provgate_storage.rows import LOCATION

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
        on_conflict: what is done with a row whose key is stored.
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
_SRC: Final = ("src", ColumnType.BYTES)
_DST: Final = ("dst", ColumnType.BYTES)
_PATH: Final = ("path", ColumnType.BYTES)

TABLES: Final[dict[str, Table]] = {
    EntityType.CONTENT: Table(EntityType.CONTENT, (_ID, _DATE), _DATE_CONFLICT),
    EntityType.DIRECTORY: Table(EntityType.DIRECTORY, (_ID, _DATE), _DATE_CONFLICT),
    EntityType.REVISION: Table(EntityType.REVISION, (_ID, _DATE, ("origin", ColumnType.BYTES)), _REVISION_CONFLICT),
    EntityType.ORIGIN: Table(EntityType.ORIGIN, (_ID, ("url", ColumnType.TEXT))),
    LOCATION: Table(LOCATION, (_PATH,)),
} | {relation: Table(relation, (_SRC, _DST, _PATH)[: 2 + relation.has_path]) for relation in RelationType}
"""The tables by the names of what they hold."""


def definitions() -> dict[str, str]:
    """Returns the statement that creates each table and index, by its name, in the order to run them."""
    made = {
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
        made |= _relation_definitions(relation)
    return made


def _relation_definitions(relation: RelationType) -> dict[str, str]:
    name = relation.value
    columns, key = "src bytea NOT NULL, dst bytea NOT NULL", "src, dst"
    if relation.has_path:
        columns, key = f"{columns}, path bytea NOT NULL", f"{key}, {PATH_KEY}"
    return {
        name: f"CREATE TABLE {name} ({columns})",
        f"{name}_key": f"CREATE UNIQUE INDEX {name}_key ON {name} ({key})",
        f"{name}_dst": f"CREATE INDEX {name}_dst ON {name} (dst)",
    }
