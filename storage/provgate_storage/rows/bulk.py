"""The old place of the checks of many values: import them from `provgate_storage.rows.values`."""

from __future__ import annotations

from provgate_storage.rows.values import (
    are_ids,
    are_microseconds,
    are_paths,
    are_urls,
    are_utc_dates,
    check_each,
    check_relation_paths,
    first_invalid,
    microseconds_of,
)

__all__ = [
    "are_ids",
    "are_microseconds",
    "are_paths",
    "are_urls",
    "are_utc_dates",
    "check_each",
    "check_relation_paths",
    "first_invalid",
    "microseconds_of",
]
