"""Encodes the rows of packages: msgpack, byte for byte as existing deployments write it.

Most rows are joined from constant pieces, without msgpack: that takes half the time, and a date needs no object.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgpack

from provgate_broker.topology.policy import Operation, WriteMethod
from provgate_broker.wire.fixed_layout import WHOLE_SECONDS_END, dated_row, revision_row
from provgate_storage.model import Id, RelationType
from provgate_storage.rows.rows import Row
from provgate_storage.rows.values import MICROSECONDS_OF_SECOND, PATH_MAX_BYTES


class _Packer(threading.local):
    """A packer for each thread: msgpack does not say that threads may share one."""

    def __init__(self) -> None:
        self.pack: Callable[[object], bytes] = msgpack.Packer(use_bin_type=True).pack


_packer: Final = _Packer()


def encode_rows(rows: Sequence[Row], operation: Operation) -> list[bytes]:
    """Returns each row encoded. A row of contents, directories or revisions may be the id alone."""
    return _ENCODERS[operation](rows)


def _dated_rows(rows: Sequence[Row]) -> list[bytes]:
    if not set(map(len, rows)) <= {2}:
        return [_packer.pack((row[0], _timestamp(row[1])) if len(row) == 2 else row) for row in rows]
    return [
        dated_row(entry_id, date // MICROSECONDS_OF_SECOND)
        if date is not None and not date % MICROSECONDS_OF_SECOND and 0 <= date < WHOLE_SECONDS_END
        else _packer.pack((entry_id, _timestamp(date)))
        for entry_id, date in rows
    ]


def _revision_rows(rows: Sequence[Row]) -> list[bytes]:
    return [_packer.pack(row) if len(row) == 1 else _revision_row(*row) for row in rows]


def _revision_row(revision: Id, date: int | None, origin: Id | None) -> bytes:
    if date is not None and not date % MICROSECONDS_OF_SECOND and 0 <= date < WHOLE_SECONDS_END:
        return revision_row(revision, date // MICROSECONDS_OF_SECOND, origin)
    # The tagged map that existing deployments use for the data of a revision.
    data: dict[Any, Any] = {
        b"swhtype": "dataclass",
        b"d": {"date": _timestamp(date), "origin": origin, "__type__": "RevisionData"},
    }
    return _packer.pack((revision, data))


def _unchanged_rows(rows: Sequence[Row]) -> list[bytes]:
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


# The msgpack header of a path, by the path's length: bin 8 or bin 16.
_PATH_HEADERS: Final = [
    struct.pack(">BB", 0xC4, size) if size < 256 else struct.pack(">BH", 0xC5, size)
    for size in range(PATH_MAX_BYTES + 1)
]

_ENCODERS: Final[Mapping[Operation, Callable[[Sequence[Row]], list[bytes]]]] = {
    Operation(WriteMethod.CONTENT_ADD): _dated_rows,
    Operation(WriteMethod.DIRECTORY_ADD): _dated_rows,
    Operation(WriteMethod.LOCATION_ADD): _unchanged_rows,
    Operation(WriteMethod.ORIGIN_ADD): _unchanged_rows,
    Operation(WriteMethod.REVISION_ADD): _revision_rows,
} | {
    Operation(WriteMethod.RELATION_ADD, relation): _relation_rows_with_paths
    if relation.has_path
    else _relation_rows_without_paths
    for relation in RelationType
}
