"""What `get` and `add` know of each kind of fact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from provgate_client.adapter import entries
from provgate_client.adapter.entries import EntryKind
from provgate_client.cli.rows import DatedRow, LocationRow, OriginRow, RelationRow, RevisionRow, Row
from provgate_storage.model import EntityType, RelationType


@dataclass(frozen=True, slots=True)
class Fact:
    """A kind of fact.

    Attributes:
        noun: what the command line calls it.
        kind: how it is written.
        row: the type of its lines.
        entry: returns the entry that a row stands for; raises `InvalidValueError` or `IdentifierError`.
        example: a line, for the help text.
    """

    noun: str
    kind: EntryKind[Any]
    row: type[Row]
    entry: Callable[[Any], Any]
    example: str


def relation_fact(relation: RelationType) -> Fact:
    """Returns the fact that is a row of `relation`."""
    return Fact(
        "relation", entries.relation_kind(relation), RelationRow, lambda row: row.entry(relation), RELATION_EXAMPLE
    )


RELATION_EXAMPLE: Final = '{"src": ID, "dst": ID, "path": "src/main.c"}'

CONTENTS: Final = Fact(
    "contents",
    entries.CONTENT,
    DatedRow,
    lambda row: row.entry(EntityType.CONTENT),
    '{"id": ID, "date": "2004-02-29T12:00:00+01:00"}',
)
DIRECTORIES: Final = Fact(
    "directories",
    entries.DIRECTORY,
    DatedRow,
    lambda row: row.entry(EntityType.DIRECTORY),
    '{"id": ID, "date": "2004-02-29T12:00:00+01:00"}',
)
REVISIONS: Final = Fact(
    "revisions",
    entries.REVISION,
    RevisionRow,
    lambda row: row.entry(),
    '{"id": ID, "date": "2004-02-29T12:00:00+01:00", "origin": ID}',
)
ORIGINS: Final = Fact(
    "origins", entries.ORIGIN, OriginRow, lambda row: row.entry(), '{"id": ID, "url": "https://example.org/repo.git"}'
)
LOCATIONS: Final = Fact("locations", entries.LOCATION, LocationRow, lambda row: row.entry(), '{"path": "src/main.c"}')
