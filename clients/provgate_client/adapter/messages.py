"""The six kinds of entries that are written, and the messages that they are cut into."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Final, Generic, TypeAlias, TypeVar

from google.protobuf.message import Message

from provgate_client.adapter import conversion
from provgate_storage.model import Id, Path, RelationData, RelationType, RevisionData
from provgate_storage.rows.values import (
    are_ids,
    are_paths,
    are_urls,
    are_utc_dates,
    check_date,
    check_each,
    check_id,
    check_path,
    check_relation_paths,
    check_url,
)

E = TypeVar("E")

DatedEntry: TypeAlias = tuple[Id, datetime | None]
RevisionEntry: TypeAlias = tuple[Id, RevisionData]
OriginEntry: TypeAlias = tuple[Id, str]
RelationEntry: TypeAlias = tuple[Id, RelationData]


@dataclass(frozen=True, slots=True)
class EntryKind(Generic[E]):
    """A kind of entry.

    Attributes:
        method: the method of the interface that adds entries of this kind.
        check: raises `InvalidValueError` for an invalid entry.
        request: converts entries to a message.
        fixed_bytes: the largest size of an entry in a message, without its path or URL: a tag and a length for every
            value and every block of columns, 20 bytes for an id, 8 for a date.
        text_bytes: returns the largest size of an entry's path or URL; None if the kind has neither.
    """

    method: str
    check: Callable[[Sequence[E]], None]
    request: Callable[[Sequence[E]], Message]
    fixed_bytes: int
    text_bytes: Callable[[E], int] | None = None


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
    _check_type(RevisionData, known, "the data of a revision")
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


def _check_type(expected: type, values: Sequence[object], what: str) -> None:
    if not set(map(type, values)) <= {expected}:
        for value in values:
            if not isinstance(value, expected):
                raise TypeError(f"{what} must be {expected.__name__}, not {type(value).__name__}")


def _url_bytes(entry: OriginEntry) -> int:
    return 4 * len(entry[1])


def _path_bytes(entry: RelationEntry) -> int:
    return len(entry[1].path or b"")


CONTENT: Final = EntryKind("content_add", _check_dated, conversion.content_add_request, 36)
DIRECTORY: Final = EntryKind("directory_add", _check_dated, conversion.directory_add_request, 36)
REVISION: Final = EntryKind("revision_add", _check_revisions, conversion.revision_add_request, 60)
ORIGIN: Final = EntryKind("origin_add", _check_origins, conversion.origin_add_request, 32, _url_bytes)
LOCATION: Final = EntryKind("location_add", _check_locations, conversion.location_add_request, 4, len)


def relation_kind(relation: RelationType) -> EntryKind[RelationEntry]:
    """Returns the kind of the rows of `relation`."""
    check = partial(_check_relation, relation)
    request = partial(conversion.relation_add_request, relation)
    return EntryKind("relation_add", check, request, 52, _path_bytes if relation.has_path else None)


def collected(values: Iterable[E]) -> Collection[E]:
    """Returns `values` itself if it can be iterated over again, or else a list of its values."""
    return values if isinstance(values, Collection) else list(values)


class Undated(Generic[E]):
    """Ids as entries that all have the same data. Can be iterated over again."""

    def __init__(self, ids: Iterable[Id], data: E) -> None:
        self._ids = collected(ids)
        self._data = data

    def __iter__(self) -> Iterator[tuple[Id, E]]:
        data = self._data
        for each in self._ids:
            yield each, data


class RelationRows:
    """The rows of a mapping from sources to sets of rows. Can be iterated over again."""

    def __init__(self, data: Mapping[Id, Collection[RelationData]]) -> None:
        self._data = data

    def __iter__(self) -> Iterator[RelationEntry]:
        for src, rows in self._data.items():
            # The exact type first: isinstance with an abstract class costs more than the rest of a row.
            if type(rows) is not set and not isinstance(rows, Collection):
                raise TypeError(f"the rows of a source must be a set, not {type(rows).__name__}")
            for row in rows:
                yield src, row


MESSAGE_MAX_BYTES: Final = 3 * 1024 * 1024
"""The largest size of a message. gRPC servers refuse more than 4 MiB."""

FIRST_MESSAGE_COUNT: Final = 10_000
"""How many entries the first message has at most; each message may have twice as many as the one before it.

The gateway, the workers and the database start when the first message is complete. Large messages cost less per entry.
"""

# How many entries are checked and converted at once. With more, Python's garbage collector runs, and it visits all that
# the caller holds: it took half of the time of a write of 100,000 rows of a relation.
_PIECE_COUNT: Final = 500


def check_entries(kind: EntryKind[E], entries: Iterable[E]) -> int:
    """Checks entries, in bounded memory, and returns how many there are.

    Raises:
        InvalidValueError: one is invalid.
    """
    count = 0
    remaining = iter(entries)
    while piece := list(islice(remaining, _PIECE_COUNT)):
        kind.check(piece)
        count += len(piece)
    return count


def requests_of(kind: EntryKind[E], entries: Iterable[E], max_count: int) -> Iterator[tuple[int, Message]]:
    """Yields messages, each with the number of its entries, in the order of the entries. None is empty.

    It takes at most `max_count` entries ahead of the message that it yields.
    """
    remaining = iter(entries)
    limit_count = min(FIRST_MESSAGE_COUNT, max_count)
    message: Message | None = None
    count = size_bytes = 0
    while piece := list(islice(remaining, min(_PIECE_COUNT, limit_count - count))):
        for part, part_bytes in _fitting(kind, piece):
            if message is not None and size_bytes + part_bytes > MESSAGE_MAX_BYTES:
                yield count, message
                message, count, size_bytes = None, 0, 0
            request = kind.request(part)
            if message is None:
                message = request
            else:
                message.MergeFrom(request)
            count += len(part)
            size_bytes += part_bytes
        if message is not None and count >= limit_count:
            yield count, message
            message, count, size_bytes = None, 0, 0
            limit_count = min(2 * limit_count, max_count)
    if message is not None:
        yield count, message


def _fitting(kind: EntryKind[E], piece: list[E]) -> Iterator[tuple[list[E], int]]:
    """Yields a piece with its size, halved until each part fits a message. Most pieces fit as they are."""
    size_bytes = kind.fixed_bytes * len(piece)
    if kind.text_bytes is not None:
        size_bytes += sum(map(kind.text_bytes, piece))
    if len(piece) == 1 or size_bytes <= MESSAGE_MAX_BYTES:
        yield piece, size_bytes
        return
    middle = len(piece) // 2
    yield from _fitting(kind, piece[:middle])
    yield from _fitting(kind, piece[middle:])
