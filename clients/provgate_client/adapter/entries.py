"""The kinds of entry that are written: how each is checked, measured and put into a message."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, Generic, TypeAlias, TypeVar

from provgate_client.adapter import conversion
from provgate_storage.bulk import are_ids, are_paths, are_urls, are_utc_dates, check_each, check_relation_paths
from provgate_storage.model import Id, Path, RelationData, RelationType, RevisionData
from provgate_storage.values import check_date, check_id, check_path, check_url

E = TypeVar("E")

DatedEntry: TypeAlias = tuple[Id, datetime | None]
RevisionEntry: TypeAlias = tuple[Id, RevisionData]
OriginEntry: TypeAlias = tuple[Id, str]
RelationEntry: TypeAlias = tuple[Id, RelationData]


@dataclass(frozen=True, slots=True)
class EntryKind(Generic[E]):
    """A kind of entry.

    Attributes:
        method: the interface's method that adds entries of this kind.
        rpc: the RPC behind it.
        check: raises `InvalidValueError` for an entry that cannot be kept.
        request: returns the message that adds the entries given.
        fixed_bytes: what an entry takes in a message at most, its text of free length left out.
        text_bytes: returns how much that text takes at most; None where a kind has none.
    """

    method: str
    rpc: str
    check: Callable[[Sequence[E]], None]
    request: Callable[[Sequence[E]], Any]
    fixed_bytes: int
    text_bytes: Callable[[E], int] | None = None


def relation_kind(relation: RelationType) -> EntryKind[RelationEntry]:
    """Returns the kind of the rows of `relation`."""
    return EntryKind(
        method="relation_add",
        rpc="RelationAdd",
        check=partial(_check_relation, relation),
        request=partial(conversion.relation_add_request, relation),
        fixed_bytes=52,
        text_bytes=(lambda entry: len(entry[1].path or b"")) if relation.has_path else None,
    )


class Undated(Generic[E]):
    """Ids as entries without data. May be iterated as often as the ids themselves."""

    def __init__(self, ids: Iterable[Id], data: E) -> None:
        self._ids = collected(ids)
        self._data = data

    def __iter__(self) -> Iterator[tuple[Id, E]]:
        data = self._data
        for each in self._ids:
            yield each, data


class RelationRows:
    """A mapping from sources to sets of rows, row by row. May be iterated as often as the mapping itself."""

    def __init__(self, data: Mapping[Id, Collection[RelationData]]) -> None:
        self._data = data

    def __iter__(self) -> Iterator[RelationEntry]:
        for src, rows in self._data.items():
            # A set by its type first: to ask an abstract class costs more than the rest of a row.
            if type(rows) is not set and not isinstance(rows, Collection):
                raise TypeError(f"the rows of a source are a set, not {type(rows).__name__}")
            for row in rows:
                yield src, row


def collected(values: Iterable[E]) -> Collection[E]:
    """Returns `values` as something that may be iterated again: itself, or a list where it is an iterator."""
    return values if isinstance(values, Collection) else list(values)


def _check_dated(entries: Sequence[DatedEntry]) -> None:
    check_each(are_ids, check_id, [entry_id for entry_id, _ in entries])
    _check_dates([date for _, date in entries])


def _check_dates(dates: Sequence[datetime | None]) -> None:
    if not are_utc_dates(dates):
        for date in dates:
            if date is not None:
                check_date(date)


def _check_revisions(entries: Sequence[RevisionEntry]) -> None:
    check_each(are_ids, check_id, [entry_id for entry_id, _ in entries])
    known = [data for _, data in entries]
    _check_type(RevisionData, known, "a revision's data")
    _check_dates([data.date for data in known])
    check_each(are_ids, check_id, [data.origin for data in known if data.origin is not None])


def _check_origins(entries: Sequence[OriginEntry]) -> None:
    check_each(are_ids, check_id, [entry_id for entry_id, _ in entries])
    check_each(are_urls, check_url, [url for _, url in entries])


def _check_locations(entries: Sequence[Path]) -> None:
    check_each(are_paths, check_path, entries)


def _check_relation(relation: RelationType, entries: Sequence[RelationEntry]) -> None:
    check_each(are_ids, check_id, [src for src, _ in entries])
    rows = [data for _, data in entries]
    _check_type(RelationData, rows, "a row of a relation")
    check_each(are_ids, check_id, [row.dst for row in rows])
    check_relation_paths(relation, [row.path for row in rows])


def _check_type(expected: type, values: Sequence[Any], what: str) -> None:
    if set(map(type, values)) <= {expected}:
        return
    for value in values:
        if not isinstance(value, expected):
            raise TypeError(f"{what} is {expected.__name__}, not {type(value).__name__}")


# The sizes: a tag and a length for every value and every block of columns, 20 bytes an id, 8 a date.
CONTENT: Final = EntryKind("content_add", "ContentAdd", _check_dated, conversion.content_add_request, 36)
DIRECTORY: Final = EntryKind("directory_add", "DirectoryAdd", _check_dated, conversion.directory_add_request, 36)
REVISION: Final = EntryKind("revision_add", "RevisionAdd", _check_revisions, conversion.revision_add_request, 60)
ORIGIN: Final = EntryKind(
    "origin_add", "OriginAdd", _check_origins, conversion.origin_add_request, 32, lambda entry: 4 * len(entry[1])
)
LOCATION: Final = EntryKind("location_add", "LocationAdd", _check_locations, conversion.location_add_request, 4, len)
