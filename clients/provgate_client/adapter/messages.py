"""Cuts entries of any number into messages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, Final, Generic, TypeAlias, TypeVar

from provgate_client.adapter import conversion
from provgate_storage.model import Id, Path, RelationData, RelationType, RevisionData
from provgate_storage.rows.bulk import are_ids, are_paths, are_urls, are_utc_dates, check_each, check_relation_paths
from provgate_storage.rows.values import check_date, check_id, check_path, check_url

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


MESSAGE_MAX_BYTES: Final = 3 * 1024 * 1024
"""What a message takes at most. gRPC servers refuse more than 4 MiB."""

FIRST_MESSAGE_COUNT: Final = 10_000
"""Entries of the first message at most; each may hold twice as many as the one before it.

The sooner a first message is complete, the sooner gateway, workers and database begin; the larger a message, the less
its entries cost them.
"""

# Entries that are looked at together: so few that Python's garbage collector is not called to look at all that the
# caller holds, which took half of the time of a write of 100,000 rows of a relation.
_PIECE_COUNT: Final = 500


def check_entries(kind: EntryKind[E], entries: Iterable[E]) -> int:
    """Checks entries of any number, in bounded memory, and returns how many there are.

    Raises:
        InvalidValueError: one cannot be kept.
    """
    count = 0
    remaining = iter(entries)
    while piece := list(islice(remaining, _PIECE_COUNT)):
        kind.check(piece)
        count += len(piece)
    return count


def requests_of(kind: EntryKind[E], entries: Iterable[E], max_count: int) -> Iterator[tuple[int, Any]]:
    """Yields each message behind the number of its entries, in the order of the entries, none of them empty.

    No more than `max_count` of `entries` are taken ahead of the message that is yielded.
    """
    remaining = iter(entries)
    limit_count = min(FIRST_MESSAGE_COUNT, max_count)
    message = _Message()
    while piece := list(islice(remaining, min(_PIECE_COUNT, limit_count - message.count))):
        for part, size_bytes in _fitting(kind, piece):
            if not message.has_room_for(size_bytes):
                yield message.count, message.request
                message = _Message()
            message.add(kind.request(part), len(part), size_bytes)
        if message.count >= limit_count:
            yield message.count, message.request
            message = _Message()
            limit_count = min(2 * limit_count, max_count)
    if message.count:
        yield message.count, message.request


class _Message:
    """A message that grows."""

    def __init__(self) -> None:
        self.request: Any = None
        self.count = 0
        self._size_bytes = 0

    def has_room_for(self, size_bytes: int) -> bool:
        return self.request is None or self._size_bytes + size_bytes <= MESSAGE_MAX_BYTES

    def add(self, request: Any, count: int, size_bytes: int) -> None:
        if self.request is None:
            self.request = request
        else:
            self.request.MergeFrom(request)
        self.count += count
        self._size_bytes += size_bytes


def _fitting(kind: EntryKind[E], piece: list[E]) -> Iterator[tuple[list[E], int]]:
    """Yields a piece with its size, halved until each part fits a message. Most do as they are."""
    size_bytes = kind.fixed_bytes * len(piece)
    if kind.text_bytes is not None:
        size_bytes += sum(map(kind.text_bytes, piece))
    if len(piece) == 1 or size_bytes <= MESSAGE_MAX_BYTES:
        yield piece, size_bytes
        return
    middle = len(piece) // 2
    yield from _fitting(kind, piece[:middle])
    yield from _fitting(kind, piece[middle:])
