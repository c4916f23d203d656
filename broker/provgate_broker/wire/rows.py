"""Encoding the rows of packages, as `wire` says and existing deployments write them.

Rows of ids and dates, and of relations, are put together from pieces that are the same in each: to have msgpack encode
a row costs twice as much, and a date needs an object first.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgpack

from provgate_broker.topology.policy import Operation, WriteMethod
from provgate_broker.wire.fixed_layout import WHOLE_SECONDS_END, dated_row, has_whole_seconds, revision_row
from provgate_storage.model import RelationType
from provgate_storage.rows.rows import Row
from provgate_storage.rows.values import MICROSECONDS_OF_SECOND, PATH_MAX_BYTES


class _Packer(threading.local):
    """One for each thread: msgpack promises nothing of a packer that two threads use."""

    def __init__(self) -> None:
        self.pack: Callable[[object], bytes] = msgpack.Packer(use_bin_type=True).pack


_packer: Final = _Packer()
_length_of_2_bytes: Final = struct.Struct(">H").pack


def encode_rows(rows: Sequence[Row], operation: Operation) -> list[bytes]:
    """Returns each row encoded. A row of contents, directories or revisions may be the id alone."""
    return _ENCODERS[operation](rows)


def _dated_rows(rows: Sequence[Row]) -> list[bytes]:
    if not set(map(len, rows)) <= {2}:
        return [_dated_row(*row) if len(row) == 2 else _packer.pack(row) for row in rows]
    # `has_whole_seconds`, without the call for each.
    return [
        dated_row(entry_id, date // MICROSECONDS_OF_SECOND)
        if date is not None and not date % MICROSECONDS_OF_SECOND and 0 <= date < WHOLE_SECONDS_END
        else _dated_row(entry_id, date)
        for entry_id, date in rows
    ]


def _dated_row(entry_id: bytes, date: int | None) -> bytes:
    return _packer.pack((entry_id, _timestamp(date)))


def _revision_rows(rows: Sequence[Row]) -> list[bytes]:
    return [_packer.pack(row) if len(row) == 1 else _revision_row(*row) for row in rows]


def _revision_row(revision: bytes, date: int | None, origin: bytes | None) -> bytes:
    if date is not None and has_whole_seconds(date):
        return revision_row(revision, date // MICROSECONDS_OF_SECOND, origin)
    return _packer.pack((revision, _tagged(date, origin)))


def _tagged(date: int | None, origin: bytes | None) -> dict[Any, Any]:
    """Returns what is known of a revision as the tagged map that existing deployments use for it."""
    return {
        b"swhtype": "dataclass",
        b"d": {"date": _timestamp(date), "origin": origin, "__type__": "RevisionData"},
    }


def _rows_as_they_are(rows: Sequence[Row]) -> list[bytes]:
    return list(map(_packer.pack, rows))


def _relation_rows_with_paths(rows: Sequence[Row]) -> list[bytes]:
    headers = _PATH_HEADERS
    return [b"\x93\xc4\x14%b\xc4\x14%b%b%b" % (src, dst, headers[len(path)], path) for src, dst, path in rows]


def _relation_rows_without_paths(rows: Sequence[Row]) -> list[bytes]:
    return [b"\x93\xc4\x14%b\xc4\x14%b\xc0" % row for row in rows]


def _timestamp(microseconds: int | None) -> msgpack.Timestamp | None:
    if microseconds is None:
        return None
    seconds, rest = divmod(microseconds, MICROSECONDS_OF_SECOND)
    return msgpack.Timestamp(seconds, rest * 1000)


def _bin_header(size: int) -> bytes:
    return b"\xc4" + bytes((size,)) if size < 256 else b"\xc5" + _length_of_2_bytes(size)


_PATH_HEADERS: Final = [_bin_header(size) for size in range(PATH_MAX_BYTES + 1)]

_ENCODERS: Final[Mapping[Operation, Callable[[Sequence[Row]], list[bytes]]]] = {
    Operation(WriteMethod.CONTENT_ADD): _dated_rows,
    Operation(WriteMethod.DIRECTORY_ADD): _dated_rows,
    Operation(WriteMethod.LOCATION_ADD): _rows_as_they_are,
    Operation(WriteMethod.ORIGIN_ADD): _rows_as_they_are,
    Operation(WriteMethod.REVISION_ADD): _revision_rows,
} | {
    Operation(WriteMethod.RELATION_ADD, relation): _relation_rows_with_paths
    if relation.has_path
    else _relation_rows_without_paths
    for relation in RelationType
}
