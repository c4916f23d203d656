"""The limits of values, and the checks of one value and of many at once.

Gateway, client, packages and databases all check here. Each `check_...` returns the value in the form in which it is
kept, or raises `InvalidValueError` with a text that is safe to show to the sender.

Each `are_...` checks many values at about a tenth of that cost: a write of a million entries is checked in up to three
programs. True means that all values are valid. False means nothing: check them one by one, as `check_each` does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, Final

from provgate_storage.errors import InvalidValue, InvalidValueError
from provgate_storage.model import EntityType, Id, Path, RelationType

ID_BYTES: Final = 20
PATH_MAX_BYTES: Final = 4096
URL_MAX_BYTES: Final = 8192
LIMIT_MAX: Final = 2**63 - 1

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
MICROSECONDS_OF_SECOND: Final = 1_000_000

_UTF8_MAX_BYTES: Final = 4  # of one character

_time_zone: Final = attrgetter("tzinfo")


def to_microseconds(date: datetime) -> int:
    """Returns the microseconds from 1970-01-01T00:00:00Z to a timezone-aware date."""
    return (date - EPOCH) // MICROSECOND


def to_date(microseconds: int) -> datetime:
    """Returns the date in UTC of microseconds since 1970-01-01T00:00:00Z. Raises `OverflowError`."""
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


def are_ids(values: Iterable[Any]) -> bool:
    """Returns True if all values are ids."""
    return set(map(type, values)) <= {bytes} and set(map(len, values)) <= {ID_BYTES}


def check_path(value: object) -> Path:
    """Returns `value` as a path: 0 to 4096 bytes without NUL."""
    if not isinstance(value, bytes):
        raise InvalidValueError(InvalidValue.PATH, f"a path is bytes, not {type(value).__name__}")
    if len(value) > PATH_MAX_BYTES:
        raise InvalidValueError(InvalidValue.PATH, f"a path is at most {PATH_MAX_BYTES} bytes, not {len(value)}")
    if b"\0" in value:
        raise InvalidValueError(InvalidValue.PATH, "a path has no NUL byte")
    return value


def are_paths(values: Collection[Any]) -> bool:
    """Returns True if all values are paths."""
    if not set(map(type, values)) <= {bytes}:
        return False
    return max(map(len, values), default=0) <= PATH_MAX_BYTES and b"\0" not in b"".join(values)


def check_relation_path(relation: RelationType, value: object) -> Path | None:
    """Returns `value` as the path of a row of `relation`: a path where the relation has paths, else None."""
    if relation.has_path:
        if value is None:
            raise InvalidValueError(InvalidValue.PATH, f"a row of {relation} has a path")
        return check_path(value)
    if value is not None:
        raise InvalidValueError(InvalidValue.PATH, f"a row of {relation} has no path")
    return None


def check_relation_paths(relation: RelationType, paths: Sequence[Any]) -> None:
    """Checks the paths of many rows of a relation. Raises `InvalidValueError`."""
    are_valid = are_paths(paths) if relation.has_path else paths.count(None) == len(paths)
    if not are_valid:
        for path in paths:
            check_relation_path(relation, path)


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


def are_urls(values: Collection[Any]) -> bool:
    """Returns True if all values are URLs."""
    if not set(map(type, values)) <= {str}:
        return False
    lengths = set(map(len, values))
    if 0 in lengths or max(lengths, default=0) > URL_MAX_BYTES // _UTF8_MAX_BYTES:
        return False
    text = "".join(values)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return "\0" not in text


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


def are_utc_dates(values: Iterable[Any]) -> bool:
    """Returns True if all values are dates in UTC."""
    # Not a set of the zones: some cannot be hashed.
    return set(map(type, values)) <= {datetime} and all(zone is UTC for zone in map(_time_zone, values))


def microseconds_of(dates: Sequence[datetime | None]) -> list[int | None]:
    """Returns dates, checked, in microseconds since 1970-01-01T00:00:00Z; None stays None."""
    if are_utc_dates(dates):
        # `to_microseconds` without a call for each date: the call costs as much as the rest.
        return [(date - EPOCH) // MICROSECOND for date in dates]  # type: ignore[operator]
    return [None if date is None else to_microseconds(check_date(date)) for date in dates]


def check_microseconds(value: int) -> int:
    """Returns `value` as a date in microseconds since 1970-01-01T00:00:00Z: in the years 1 to 9999."""
    if not MICROSECONDS_MIN <= value <= MICROSECONDS_MAX:
        raise InvalidValueError(InvalidValue.DATE, "a date is in the years 1 to 9999")
    return value


def are_microseconds(values: Collection[int]) -> bool:
    """Returns True if all integers are dates in microseconds since 1970-01-01T00:00:00Z."""
    return not values or (min(values) >= MICROSECONDS_MIN and max(values) <= MICROSECONDS_MAX)


def check_limit(value: object) -> int | None:
    """Returns `value` as a limit: None, or 1 to 2**63 - 1."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidValueError(InvalidValue.LIMIT, f"a limit is a number, not {type(value).__name__}")
    if not 1 <= value <= LIMIT_MAX:
        raise InvalidValueError(InvalidValue.LIMIT, f"a limit is 1 to {LIMIT_MAX}, not {value}")
    return value


def check_each(
    are_valid: Callable[[Sequence[Any]], bool], check: Callable[[Any], object], values: Sequence[Any]
) -> None:
    """Checks many values with an `are_...` and, where that is not enough, with the `check_...` beside it.

    Raises:
        InvalidValueError: as `check` raises it for the first invalid value.
    """
    if not are_valid(values):
        for value in values:
            check(value)


def first_invalid(check: Callable[[Any], object], values: Iterable[Any]) -> tuple[int, InvalidValueError] | None:
    """Returns the index of the first value that `check` refuses, and its error; None if all values are valid."""
    for index, value in enumerate(values):
        try:
            check(value)
        except InvalidValueError as error:
            return index, error
    return None
