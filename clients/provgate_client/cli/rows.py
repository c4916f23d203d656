"""Reads entries from lines of ndjson, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, Final, Self

import msgspec

from provgate_client.adapter import messages as entries
from provgate_client.adapter.messages import EntryKind
from provgate_client.cli.failures import CommandError, one_line
from provgate_client.identifiers import IdentifierError, parse_identifier
from provgate_storage.errors import InvalidValue, InvalidValueError
from provgate_storage.model import EntityType, Id, Path, ProvenanceResult, RelationData, RelationType, RevisionData
from provgate_storage.rows.values import check_date

# The lines of ndjson that `get` prints and `add` reads.
#
# Ids are hexadecimal when printed; SWHIDs are read too. Dates are ISO 8601 with an offset. A path is text under "path"
# where it is UTF-8, and hexadecimal under "path_hex" where it is not. What is None is left out.


class Row(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The base of all rows."""


class DatedRow(Row, frozen=True):
    """A content or a directory. Without a date where only its id is known, or wanted."""

    id: str
    date: str | None = None

    @classmethod
    def of(cls, id: Id, date: datetime | None = None) -> Self:
        """Returns the row of an entity."""
        return cls(id.hex(), _date_text(date))

    def entry(self, entity: EntityType) -> tuple[Id, datetime | None]:
        """Returns id and date."""
        return parse_identifier(self.id, entity), _date(self.date)


class RevisionRow(Row, frozen=True):
    """A revision with its date and the id of its preferred origin."""

    id: str
    date: str | None = None
    origin: str | None = None

    @classmethod
    def of(cls, id: Id, data: RevisionData) -> Self:
        """Returns the row of a revision."""
        return cls(id.hex(), _date_text(data.date), data.origin.hex() if data.origin is not None else None)

    def entry(self) -> tuple[Id, RevisionData]:
        """Returns id and data."""
        origin = parse_identifier(self.origin, EntityType.ORIGIN) if self.origin is not None else None
        return parse_identifier(self.id, EntityType.REVISION), RevisionData(_date(self.date), origin)


class OriginRow(Row, frozen=True):
    """An origin with its URL."""

    id: str
    url: str

    @classmethod
    def of(cls, id: Id, url: str) -> Self:
        """Returns the row of an origin."""
        return cls(id.hex(), url)

    def entry(self) -> tuple[Id, str]:
        """Returns id and URL."""
        return parse_identifier(self.id, EntityType.ORIGIN), self.url


class LocationRow(Row, frozen=True):
    """A path."""

    path: str | None = None
    path_hex: str | None = None

    @classmethod
    def of(cls, path: Path) -> Self:
        """Returns the row of a path."""
        return cls(*_path_texts(path))

    def entry(self) -> Path:
        """Returns the path."""
        path = _path(self.path, self.path_hex)
        if path is None:
            raise InvalidValueError(InvalidValue.PATH, "a location has a path or a path_hex")
        return path


class RelationRow(Row, frozen=True):
    """A row of a relation."""

    src: str
    dst: str
    path: str | None = None
    path_hex: str | None = None

    @classmethod
    def of(cls, src: Id, data: RelationData) -> Self:
        """Returns the row."""
        return cls(src.hex(), data.dst.hex(), *_path_texts(data.path))

    def entry(self, relation: RelationType) -> tuple[Id, RelationData]:
        """Returns source and far end."""
        src, dst = parse_identifier(self.src, relation.source), parse_identifier(self.dst, relation.destination)
        return src, RelationData(dst, _path(self.path, self.path_hex))


class ResultRow(Row, frozen=True):
    """An occurrence of a content; `origin` is a URL."""

    content: str
    date: str
    revision: str
    path: str | None = None
    path_hex: str | None = None
    origin: str | None = None

    @classmethod
    def of(cls, result: ProvenanceResult) -> Self:
        """Returns the row of an occurrence."""
        return cls(
            result.content.hex(),
            result.date.isoformat(),
            result.revision.hex(),
            *_path_texts(result.path),
            origin=result.origin,
        )


def _date_text(date: datetime | None) -> str | None:
    return date.isoformat() if date is not None else None


def _date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        date = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidValueError(InvalidValue.DATE, f"{text!r} is no date: {error}") from error
    if date.utcoffset() is None:
        raise InvalidValueError(InvalidValue.DATE, f"{text!r} has no offset: write {date.isoformat()}+00:00 for UTC")
    return check_date(date)


def _path_texts(path: Path | None) -> tuple[str | None, str | None]:
    if path is None:
        return None, None
    try:
        return path.decode(), None
    except UnicodeDecodeError:
        return None, path.hex()


def _path(text: str | None, hexadecimal: str | None) -> Path | None:
    if text is not None and hexadecimal is not None:
        raise InvalidValueError(InvalidValue.PATH, "a row has a path or a path_hex, not both")
    try:
        return bytes.fromhex(hexadecimal) if hexadecimal is not None else text.encode() if text is not None else None
    except ValueError as error:
        raise InvalidValueError(InvalidValue.PATH, "path_hex is not hexadecimal, or path is not Unicode") from error


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


# The longest row has a path of 4096 bytes, and JSON may spend six on each.
LINE_MAX_BYTES: Final = 256 * 1024
BATCH_ENTRIES: Final = 50_000
BATCH_BYTES: Final = 16 * 1024 * 1024


def entries_of(stream: BinaryIO, fact: Fact) -> Iterator[tuple[Any, int]]:
    """Yields each line's entry, checked, and the line's size. Empty lines are skipped.

    Raises:
        CommandError: a line is too long, no JSON, or not such a fact; the message starts with its number.
    """
    decoder = msgspec.json.Decoder(fact.row)
    for number, line in enumerate(iter(lambda: stream.readline(LINE_MAX_BYTES + 1), b""), start=1):
        if len(line) > LINE_MAX_BYTES:
            raise CommandError(f"line {number}: longer than {LINE_MAX_BYTES} bytes")
        if not line.isspace():
            yield _entry(decoder, fact, line, number), len(line)


def _entry(decoder: msgspec.json.Decoder[Any], fact: Fact, line: bytes, number: int) -> Any:
    try:
        entry = fact.entry(decoder.decode(line))
        fact.kind.check([entry])
    except (msgspec.MsgspecError, UnicodeDecodeError, InvalidValueError, IdentifierError) as error:
        raise CommandError(one_line(f"line {number}: {error}")) from error
    return entry


def in_batches(entries: Iterable[tuple[Any, int]]) -> Iterator[list[Any]]:
    """Yields entries in lists that are bounded by count and by the bytes of their lines, none of them empty."""
    batch: list[Any] = []
    batch_bytes = 0
    for entry, line_bytes in entries:
        batch.append(entry)
        batch_bytes += line_bytes
        if len(batch) == BATCH_ENTRIES or batch_bytes >= BATCH_BYTES:
            yield batch
            batch, batch_bytes = [], 0
    if batch:
        yield batch
