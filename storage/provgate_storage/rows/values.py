"""The limits of single values, and the checks that hold them.

One place for gateway, adapter, decoder and backends. Each check returns the value in the form in which it is kept, or
raises `InvalidValueError` with a text that can be shown to whoever sent the value.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from provgate_storage.errors import InvalidValue, InvalidValueError
from provgate_storage.model import EntityType, Id, Path, RelationType

ID_BYTES: Final = 20
PATH_MAX_BYTES: Final = 4096
URL_MAX_BYTES: Final = 8192
LIMIT_MAX: Final = 2**63 - 1

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
MICROSECONDS_OF_SECOND: Final = 1_000_000


def to_microseconds(date: datetime) -> int:
    """Returns the microseconds from 1970-01-01T00:00:00Z to a date, which has a time zone."""
    return (date - EPOCH) // MICROSECOND


def to_date(microseconds: int) -> datetime:
    """Returns the date, in UTC, so many microseconds after 1970-01-01T00:00:00Z. Raises `OverflowError`."""
    # A third faster than timedelta(microseconds=...).
    seconds, rest = divmod(microseconds, MICROSECONDS_OF_SECOND)
    return EPOCH + timedelta(0, seconds, rest)


MICROSECONDS_MIN: Final = to_microseconds(datetime.min.replace(tzinfo=UTC))
MICROSECONDS_MAX: Final = to_microseconds(datetime.max.replace(tzinfo=UTC))


def check_id(value: object) -> Id:
    """Returns `value` as an id: 20 bytes."""
    if not isinstance(value, bytes):
        raise InvalidValueError(InvalidValue.ID, f"an id is {ID_BYTES} bytes, not {type(value).__name__}")
    if len(value) != ID_BYTES:
        hint = "; hexadecimal text must be decoded first" if len(value) == 2 * ID_BYTES else ""
        raise InvalidValueError(InvalidValue.ID, f"an id is {ID_BYTES} bytes, not {len(value)}{hint}")
    return value


def check_path(value: object) -> Path:
    """Returns `value` as a path: 0 to 4096 bytes without NUL."""
    if not isinstance(value, bytes):
        raise InvalidValueError(InvalidValue.PATH, f"a path is bytes, not {type(value).__name__}")
    if len(value) > PATH_MAX_BYTES:
        raise InvalidValueError(InvalidValue.PATH, f"a path is at most {PATH_MAX_BYTES} bytes, not {len(value)}")
    if b"\0" in value:
        raise InvalidValueError(InvalidValue.PATH, "a path has no NUL byte")
    return value


def check_relation_path(relation: RelationType, value: object) -> Path | None:
    """Returns `value` as the path of a row of `relation`: None in those that have none, a path in the others."""
    if relation.has_path:
        if value is None:
            raise InvalidValueError(InvalidValue.PATH, f"a row of {relation} has a path")
        return check_path(value)
    if value is not None:
        raise InvalidValueError(InvalidValue.PATH, f"a row of {relation} has no path")
    return None


def check_relation(value: str) -> RelationType:
    """Returns `value` as a relation: one of the `RelationType`, or its text."""
    try:
        return RelationType(value)
    except ValueError as error:
        raise InvalidValueError(InvalidValue.ENUM, f"a relation is one of {', '.join(RelationType)}") from error


def check_entity(value: str) -> EntityType:
    """Returns `value` as an entity type: one of the `EntityType`, or its text."""
    try:
        return EntityType(value)
    except ValueError as error:
        raise InvalidValueError(InvalidValue.ENUM, f"an entity type is one of {', '.join(EntityType)}") from error


def check_url(value: object) -> str:
    """Returns `value` as a URL: 1 to 8192 bytes of UTF-8 without NUL."""
    if not isinstance(value, str):
        raise InvalidValueError(InvalidValue.URL, f"a URL is text, not {type(value).__name__}")
    if not value:
        raise InvalidValueError(InvalidValue.URL, "a URL is not empty")
    if "\0" in value:
        raise InvalidValueError(InvalidValue.URL, "a URL has no NUL character")
    try:
        size_bytes = len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidValueError(InvalidValue.URL, "a URL is text that UTF-8 can encode") from error
    if size_bytes > URL_MAX_BYTES:
        raise InvalidValueError(InvalidValue.URL, f"a URL is at most {URL_MAX_BYTES} bytes, not {size_bytes}")
    return value


def check_date(value: object) -> datetime:
    """Returns `value` as a date: timezone-aware, in UTC, from the year 1 to the year 9999."""
    if not isinstance(value, datetime):
        raise InvalidValueError(InvalidValue.DATE, f"a date is a datetime, not {type(value).__name__}")
    if value.tzinfo is UTC:
        return value
    if value.utcoffset() is None:
        raise InvalidValueError(InvalidValue.DATE, "a date has a time zone")
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise InvalidValueError(InvalidValue.DATE, "a date is in the years 1 to 9999 of UTC") from error


def check_microseconds(value: int) -> int:
    """Returns `value` as a date in microseconds since 1970-01-01T00:00:00Z: in the years 1 to 9999."""
    if not MICROSECONDS_MIN <= value <= MICROSECONDS_MAX:
        raise InvalidValueError(InvalidValue.DATE, "a date is in the years 1 to 9999")
    return value


def check_limit(value: object) -> int | None:
    """Returns `value` as a limit: None, or 1 to 2**63 - 1."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidValueError(InvalidValue.LIMIT, f"a limit is a number, not {type(value).__name__}")
    if not 1 <= value <= LIMIT_MAX:
        raise InvalidValueError(InvalidValue.LIMIT, f"a limit is 1 to {LIMIT_MAX}, not {value}")
    return value
