"""The checks of `values`, of very many values at once.

The functions `are_...` say whether all of their values are surely valid, at a tenth of what one check a value costs; a
write of a million entries pays for each value in up to three programs. False says nothing: who needs to know checks one
by one, and finds the value at fault, or none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Final

from provgate_storage.errors import InvalidValue, InvalidValueError
from provgate_storage.model import RelationType
from provgate_storage.rows.values import (
    EPOCH,
    ID_BYTES,
    MICROSECOND,
    MICROSECONDS_MAX,
    MICROSECONDS_MIN,
    PATH_MAX_BYTES,
    URL_MAX_BYTES,
    check_date,
    check_relation_path,
    to_microseconds,
)

# What a character takes at most.
_UTF8_MAX_BYTES: Final = 4

_time_zone: Final = attrgetter("tzinfo")


def are_ids(values: Iterable[Any]) -> bool:
    """Returns whether all values are surely ids."""
    return set(map(type, values)) <= {bytes} and set(map(len, values)) <= {ID_BYTES}


def are_utc_dates(values: Iterable[Any]) -> bool:
    """Returns whether all values are surely dates in UTC."""
    # Not a set of the zones: not all of them can be hashed.
    return set(map(type, values)) <= {datetime} and all(zone is UTC for zone in map(_time_zone, values))


def are_microseconds(values: Collection[int]) -> bool:
    """Returns whether all of these integers are dates in microseconds since 1970-01-01T00:00:00Z."""
    return not values or (min(values) >= MICROSECONDS_MIN and max(values) <= MICROSECONDS_MAX)


def are_paths(values: Collection[Any]) -> bool:
    """Returns whether all values are surely paths."""
    if not set(map(type, values)) <= {bytes}:
        return False
    return max(map(len, values), default=0) <= PATH_MAX_BYTES and b"\0" not in b"".join(values)


def are_urls(values: Collection[Any]) -> bool:
    """Returns whether all values are surely URLs."""
    if not set(map(type, values)) <= {str}:
        return False
    lengths = set(map(len, values))
    return (
        0 not in lengths
        and max(lengths, default=0) <= URL_MAX_BYTES // _UTF8_MAX_BYTES
        and _is_utf8(text := "".join(values))
        and "\0" not in text
    )


def _is_utf8(text: str) -> bool:
    """Returns whether UTF-8 can encode a text: it has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_each(
    are_valid: Callable[[Sequence[Any]], bool], check: Callable[[Any], object], values: Sequence[Any]
) -> None:
    """Checks many values.

    Args:
        are_valid: one of this module's functions.
        check: the same for one value.
        values: of any type.

    Raises:
        InvalidValueError: as `check` raises it for the first value that is not valid.
    """
    if not are_valid(values):
        for value in values:
            check(value)


def first_invalid(check: Callable[[Any], object], values: Iterable[Any]) -> tuple[int, InvalidValueError] | None:
    """Returns the place of the first value that `check` refuses, and what it says; None where there is none."""
    for index, value in enumerate(values):
        try:
            check(value)
        except InvalidValueError as error:
            return index, error
    return None


def check_relation_paths(relation: RelationType, paths: Sequence[Any]) -> None:
    """Checks the paths of rows of a relation. Raises `InvalidValueError`."""
    if relation.has_path:
        check_each(are_paths, lambda path: check_relation_path(relation, path), paths)
    elif any(path is not None for path in paths):
        raise InvalidValueError(InvalidValue.PATH, f"a row of {relation} has no path")


def microseconds_of(dates: Sequence[datetime | None]) -> list[int | None]:
    """Returns dates in microseconds since 1970-01-01T00:00:00Z; None stays None."""
    if are_utc_dates(dates):
        # `to_microseconds` without the call for each, which costs as much as the rest.
        return [(date - EPOCH) // MICROSECOND for date in dates]  # type: ignore[operator]
    return [None if date is None else to_microseconds(check_date(date)) for date in dates]
