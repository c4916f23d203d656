"""The kinds of entry that are written: how each is checked, measured and put into a message."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, Generic, TypeAlias, TypeVar

from provgate_client.adapter import conversion
from provgate_storage.model import Id, Path, RelationData, RelationType, RevisionData
from provgate_storage.values import check_date, check_id, check_path, check_relation_path, check_url

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
        check: returns the number of entries given, or raises `InvalidValueError` for the first that cannot be kept.
        request: returns the message that adds the entries given.
        fixed_bytes: what an entry takes in a message at most, its text of free length left out.
        text_bytes: returns how much that text takes at most; None where a kind has none.
    """

    method: str
    rpc: str
    check: Callable[[Iterable[E]], int]
    request: Callable[[list[E]], Any]
    fixed_bytes: int
    text_bytes: Callable[[E], int] | None = None


def relation_kind(relation: RelationType) -> EntryKind[RelationEntry]:
    """Returns the kind of the rows of `relation`."""
    return EntryKind(
        method="relation_add",
        rpc="RelationAdd",
        check=partial(_check_relation, relation),
        request=partial(conversion.relation_add_request, relation),
        fixed_bytes=60,
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
            if not isinstance(rows, Collection):
                raise TypeError(f"the rows of a source are a set, not {type(rows).__name__}")
            for row in rows:
                yield src, row


def collected(values: Iterable[E]) -> Collection[E]:
    """Returns `values` as something that may be iterated again: itself, or a list where it is an iterator."""
    return values if isinstance(values, Collection) else list(values)


def _check_dated(entries: Iterable[DatedEntry]) -> int:
    count = 0
    for entry_id, date in entries:
        check_id(entry_id)
        if date is not None:
            check_date(date)
        count += 1
    return count


def _check_revisions(entries: Iterable[RevisionEntry]) -> int:
    count = 0
    for entry_id, data in entries:
        check_id(entry_id)
        if not isinstance(data, RevisionData):
            raise TypeError(f"a revision's data is RevisionData, not {type(data).__name__}")
        if data.date is not None:
            check_date(data.date)
        if data.origin is not None:
            check_id(data.origin)
        count += 1
    return count


def _check_origins(entries: Iterable[OriginEntry]) -> int:
    count = 0
    for entry_id, url in entries:
        check_id(entry_id)
        check_url(url)
        count += 1
    return count


def _check_locations(entries: Iterable[Path]) -> int:
    count = 0
    for path in entries:
        check_path(path)
        count += 1
    return count


def _check_relation(relation: RelationType, entries: Iterable[RelationEntry]) -> int:
    has_path = relation.has_path  # Asked once: it is a third of the cost of a row.
    count = 0
    for src, data in entries:
        check_id(src)
        if not isinstance(data, RelationData):
            raise TypeError(f"a row of a relation is RelationData, not {type(data).__name__}")
        check_id(data.dst)
        if has_path and data.path is not None:
            check_path(data.path)
        else:
            check_relation_path(relation, data.path)
        count += 1
    return count


# The sizes: a tag and a length for every field and every message, 20 bytes an id, at most 18 a timestamp.
CONTENT: Final = EntryKind("content_add", "ContentAdd", _check_dated, conversion.content_add_request, 48)
DIRECTORY: Final = EntryKind("directory_add", "DirectoryAdd", _check_dated, conversion.directory_add_request, 48)
REVISION: Final = EntryKind("revision_add", "RevisionAdd", _check_revisions, conversion.revision_add_request, 72)
ORIGIN: Final = EntryKind(
    "origin_add", "OriginAdd", _check_origins, conversion.origin_add_request, 32, lambda entry: 4 * len(entry[1])
)
LOCATION: Final = EntryKind("location_add", "LocationAdd", _check_locations, conversion.location_add_request, 4, len)
