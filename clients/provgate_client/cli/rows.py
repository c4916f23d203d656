"""The lines of ndjson that `get` prints and `add` reads.

Ids are hexadecimal when printed; SWHIDs are read too. Dates are ISO 8601 with an offset. A path is text under "path"
where it is UTF-8, and hexadecimal under "path_hex" where it is not. What is None is left out.
"""

from __future__ import annotations

from datetime import datetime
from typing import Self

import msgspec

from provgate_client.identifiers import parse_identifier
from provgate_storage.errors import InvalidValue, InvalidValueError
from provgate_storage.model import EntityType, Id, Path, ProvenanceResult, RelationData, RelationType, RevisionData
from provgate_storage.values import check_date


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
