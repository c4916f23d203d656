"""The lines of ndjson that `provgate get` prints and `provgate add` reads.

Ids are printed in hexadecimal; SWHIDs can be read too. Dates are ISO 8601 with an offset. A path is text under "path"
if it is UTF-8, otherwise hexadecimal under "path_hex". Fields that are None are left out.
"""

from __future__ import annotations

from datetime import datetime
from typing import Generic, Self, TypeVar

import msgspec

from provgate_client.identifiers import parse_identifier
from provgate_storage.errors import InvalidValue, InvalidValueError
from provgate_storage.model import EntityType, Id, Path, ProvenanceResult, RelationData, RelationType, RevisionData
from provgate_storage.rows.values import check_date

E = TypeVar("E")


class Row(msgspec.Struct, Generic[E], frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The base of all rows. E is the value that a row prints.

    `of` makes a row of a value. `entry` returns the value again, and raises `IdentifierError` or `InvalidValueError`.
    """

    @classmethod
    def of(cls, value: E) -> Self:
        """Returns the row of a value."""
        raise NotImplementedError


class EntityRow(Row[Id], frozen=True):
    """The id of an entity."""

    id: str

    @classmethod
    def of(cls, value: Id) -> Self:
        """Returns the row of an id."""
        return cls(value.hex())


class DatedRow(Row[tuple[Id, datetime | None]], frozen=True):
    """A content or a directory."""

    id: str
    date: str | None = None

    @classmethod
    def of(cls, value: tuple[Id, datetime | None]) -> Self:
        """Returns the row of an entity and its date."""
        id, date = value
        return cls(id.hex(), _date_text(date))

    def entry(self, entity: EntityType) -> tuple[Id, datetime | None]:
        """Returns id and date."""
        return parse_identifier(self.id, entity), _date(self.date)


class RevisionRow(Row[tuple[Id, RevisionData]], frozen=True):
    """A revision with its date and the id of its preferred origin."""

    id: str
    date: str | None = None
    origin: str | None = None

    @classmethod
    def of(cls, value: tuple[Id, RevisionData]) -> Self:
        """Returns the row of a revision."""
        id, data = value
        return cls(id.hex(), _date_text(data.date), data.origin.hex() if data.origin is not None else None)

    def entry(self) -> tuple[Id, RevisionData]:
        """Returns id and data."""
        origin = parse_identifier(self.origin, EntityType.ORIGIN) if self.origin is not None else None
        return parse_identifier(self.id, EntityType.REVISION), RevisionData(_date(self.date), origin)


class OriginRow(Row[tuple[Id, str]], frozen=True):
    """An origin with its URL."""

    id: str
    url: str

    @classmethod
    def of(cls, value: tuple[Id, str]) -> Self:
        """Returns the row of an origin."""
        id, url = value
        return cls(id.hex(), url)

    def entry(self) -> tuple[Id, str]:
        """Returns id and URL."""
        return parse_identifier(self.id, EntityType.ORIGIN), self.url


class LocationRow(Row[Path], frozen=True):
    """A path."""

    path: str | None = None
    path_hex: str | None = None

    @classmethod
    def of(cls, value: Path) -> Self:
        """Returns the row of a path."""
        return cls(*_path_texts(value))

    def entry(self) -> Path:
        """Returns the path."""
        path = _path(self.path, self.path_hex)
        if path is None:
            raise InvalidValueError(InvalidValue.PATH, "a location needs a path or a path_hex")
        return path


class RelationRow(Row[tuple[Id, RelationData]], frozen=True):
    """A row of a relation."""

    src: str
    dst: str
    path: str | None = None
    path_hex: str | None = None

    @classmethod
    def of(cls, value: tuple[Id, RelationData]) -> Self:
        """Returns the row of a source and its destination."""
        src, data = value
        return cls(src.hex(), data.dst.hex(), *_path_texts(data.path))

    def entry(self, relation: RelationType) -> tuple[Id, RelationData]:
        """Returns source and destination."""
        src, dst = parse_identifier(self.src, relation.source), parse_identifier(self.dst, relation.destination)
        return src, RelationData(dst, _path(self.path, self.path_hex))


class ResultRow(Row[ProvenanceResult], frozen=True):
    """An occurrence of a content; `origin` is a URL."""

    content: str
    date: str
    revision: str
    path: str | None = None
    path_hex: str | None = None
    origin: str | None = None

    @classmethod
    def of(cls, value: ProvenanceResult) -> Self:
        """Returns the row of an occurrence."""
        path, path_hex = _path_texts(value.path)
        return cls(value.content.hex(), value.date.isoformat(), value.revision.hex(), path, path_hex, value.origin)


def _date_text(date: datetime | None) -> str | None:
    return date.isoformat() if date is not None else None


def _date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        date = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidValueError(InvalidValue.DATE, f"{text!r} is not a date: {error}") from error
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
