"""The package on the wire: msgpack, byte for byte as existing deployments write it.

A body is a map with the one text key "data": a list of rows. An entry is the row's value in Python:

| operation | entry |
|---|---|
| content_add, directory_add | `(id,)` or `(id, date or None)` |
| location_add | `(path,)` |
| origin_add | `(id, url)` |
| revision_add | `(id,)` or `(id, RevisionData)` |
| relation_add | `(src, dst, path or None)` |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeAlias

import msgpack

from provgate_broker.errors import MalformedPackageError
from provgate_broker.topology import Operation, WriteMethod
from provgate_storage.errors import InvalidValueError
from provgate_storage.model import RelationType, RevisionData
from provgate_storage.values import (
    PATH_MAX_BYTES,
    URL_MAX_BYTES,
    check_date,
    check_id,
    check_path,
    check_relation_path,
    check_url,
)

CONTENT_TYPE: Final = "application/msgpack"

# A request with this header, set to true, comes from a sender that understands a reply with an error.
NACK_HEADER: Final = "provgate-nack"

Entry: TypeAlias = tuple[Any, ...]

_KEY: Final = "data"
_BODY_START: Final = b"\x81\xa4data"

# Map, key, and the header of a list of up to 2**32 - 1 rows.
_START_MAX_BYTES: Final = len(_BODY_START) + 5

# No row is shorter than a list of one empty path.
_ROW_MIN_BYTES: Final = 3
_ROW_MAX_LENGTH: Final = 3
_TAGGED_MAX_LENGTH: Final = 3
_TIMESTAMP_MAX_BYTES: Final = 12


class EntryEncoder:
    """Encodes entries one by one, so that a package can be cut where its size is known. Not thread-safe."""

    def __init__(self) -> None:
        self._packer = msgpack.Packer(use_bin_type=True, datetime=True, default=_tagged)

    def row(self, entry: Entry) -> bytes:
        """Returns an entry as a row."""
        packed: bytes = self._packer.pack(entry)
        return packed

    def body(self, rows: list[bytes]) -> bytes:
        """Returns the body of a package of rows."""
        header: bytes = self._packer.pack_array_header(len(rows))
        return b"".join((_BODY_START, header, *rows))


def encode_package(entries: Iterable[Entry]) -> bytes:
    """Returns the body of a package of entries."""
    encoder = EntryEncoder()
    return encoder.body([encoder.row(entry) for entry in entries])


def decode_package(body: bytes, operation: Operation) -> list[Entry]:
    """Returns the entries of a body.

    Sizes are bounded before anything is built of them: what is allocated is in proportion to the body's own size.

    Args:
        body: as it came.
        operation: that of the queue it came from.

    Raises:
        MalformedPackageError: the body is not a package, or one of its rows is not an entry of `operation`.
    """
    unpacker = msgpack.Unpacker(
        raw=False,
        timestamp=3,
        strict_map_key=True,
        max_buffer_size=max(len(body), 1),
        max_array_len=_ROW_MAX_LENGTH,
        max_map_len=_TAGGED_MAX_LENGTH,
        max_bin_len=PATH_MAX_BYTES,
        max_str_len=URL_MAX_BYTES,
        max_ext_len=_TIMESTAMP_MAX_BYTES,
    )
    try:
        unpacker.feed(body)
        row_count = _read_start(unpacker, len(body))
        to_entry = _READERS[operation]
        entries = [to_entry(row) for row in unpacker]
        trailing = unpacker.tell() != len(body)
    except InvalidValueError as error:
        raise MalformedPackageError(str(error)) from error
    except (ValueError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise MalformedPackageError(
            f"the body is not msgpack that a package may hold ({type(error).__name__})"
        ) from error
    if trailing or len(entries) != row_count:
        raise MalformedPackageError(f"the body says {row_count} rows and holds {len(entries)}, or ends in the middle")
    return entries


def claimed_row_count(body: bytes) -> int:
    """Returns how many rows a body says that it holds, without decoding them; 0 where it is no package."""
    unpacker = msgpack.Unpacker(raw=False, max_buffer_size=_START_MAX_BYTES, max_str_len=len(_KEY))
    unpacker.feed(body[:_START_MAX_BYTES])
    try:
        return _read_start(unpacker, len(body))
    except (MalformedPackageError, ValueError, msgpack.UnpackException):
        return 0


def _read_start(unpacker: msgpack.Unpacker, body_bytes: int) -> int:
    if unpacker.read_map_header() != 1:
        raise MalformedPackageError("the body is not a map of one key")
    if unpacker.unpack() not in (_KEY, _KEY.encode()):
        raise MalformedPackageError(f"the key of the body is not {_KEY!r}")
    row_count: int = unpacker.read_array_header()
    if row_count > body_bytes // _ROW_MIN_BYTES:
        raise MalformedPackageError(f"the body says {row_count} rows, more than its {body_bytes} bytes can hold")
    return row_count


def _row(row: object, *lengths: int) -> list[Any]:
    if type(row) is not list or len(row) not in lengths:
        raise MalformedPackageError(f"a row is not a list of {' or '.join(map(str, lengths))}")
    return row


def _dated_entry(row: object) -> Entry:
    fields = _row(row, 1, 2)
    check_id(fields[0])
    if len(fields) == 2 and fields[1] is not None:
        check_date(fields[1])
    return tuple(fields)


def _location_entry(row: object) -> Entry:
    return (check_path(_row(row, 1)[0]),)


def _origin_entry(row: object) -> Entry:
    fields = _row(row, 2)
    return (check_id(fields[0]), check_url(fields[1]))


def _revision_entry(row: object) -> Entry:
    fields = _row(row, 1, 2)
    check_id(fields[0])
    if len(fields) == 1:
        return (fields[0],)
    return (fields[0], _revision_data(fields[1]))


def _relation_entry(relation: RelationType, row: object) -> Entry:
    fields = _row(row, 3)
    return (check_id(fields[0]), check_id(fields[1]), check_relation_path(relation, fields[2]))


_READERS: Final[Mapping[Operation, Callable[[object], Entry]]] = {
    Operation(WriteMethod.CONTENT_ADD): _dated_entry,
    Operation(WriteMethod.DIRECTORY_ADD): _dated_entry,
    Operation(WriteMethod.LOCATION_ADD): _location_entry,
    Operation(WriteMethod.ORIGIN_ADD): _origin_entry,
    Operation(WriteMethod.REVISION_ADD): _revision_entry,
} | {Operation(WriteMethod.RELATION_ADD, relation): partial(_relation_entry, relation) for relation in RelationType}


def _tagged(value: object) -> dict[Any, Any]:
    """Returns a value that msgpack has no form for as the tagged map that existing deployments use for it."""
    if not isinstance(value, RevisionData):
        raise TypeError(f"a row holds no {type(value).__name__}")
    return {
        b"swhtype": "dataclass",
        b"d": {"date": value.date, "origin": value.origin, "__type__": "RevisionData"},
    }


def _revision_data(value: object) -> RevisionData:
    tagged = _text_keys(value)
    if set(tagged) != {"swhtype", "d"} or tagged["swhtype"] != "dataclass":
        raise MalformedPackageError("a revision's data has an unknown tag")
    fields = _text_keys(tagged["d"])
    if set(fields) != {"date", "origin", "__type__"} or fields["__type__"] != "RevisionData":
        raise MalformedPackageError("a revision's data is not a RevisionData")
    date: datetime | None = fields["date"]
    origin: bytes | None = fields["origin"]
    return RevisionData(
        None if date is None else check_date(date),
        None if origin is None else check_id(origin),
    )


def _text_keys(value: object) -> dict[str, Any]:
    # Of one key, bytes and text are the same: deployments differ in which of the two they write.
    if not isinstance(value, dict):
        raise MalformedPackageError("a revision's data is not a map")
    keyed = {key.decode("ascii") if isinstance(key, bytes) else key: item for key, item in value.items()}
    if len(keyed) != len(value):
        raise MalformedPackageError("a revision's data has a key twice")
    return keyed


@dataclass(frozen=True, slots=True)
class Nack:
    """A reply of a worker that refused a package.

    Attributes:
        error: the reason, a word for programs.
        message: the reason, for people.
        rejected_count: the entries of the package, none of which is stored.
    """

    error: str
    message: str
    rejected_count: int


Reply: TypeAlias = int | Nack
"""What a worker answers: the number of entries that are committed, or that it refused the package."""

_REPLY_MAX_BYTES: Final = 64 * 1024


def encode_reply(reply: Reply) -> bytes:
    """Returns the body of a reply."""
    value: object = reply
    if isinstance(reply, Nack):
        value = {"error": reply.error, "message": reply.message, "rejected": reply.rejected_count}
    packed: bytes = msgpack.packb(value)
    return packed


def decode_reply(body: bytes) -> Reply:
    """Returns the reply that a body holds.

    Raises:
        MalformedPackageError: it holds none.
    """
    try:
        value = msgpack.unpackb(body[: _REPLY_MAX_BYTES + 1], max_map_len=3, max_array_len=0, max_ext_len=0)
    except (ValueError, msgpack.UnpackException) as error:
        raise MalformedPackageError("a reply is not msgpack") from error
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, dict) and set(value) == {"error", "message", "rejected"}:
        reason, message, rejected = value["error"], value["message"], value["rejected"]
        if isinstance(reason, str) and isinstance(message, str) and isinstance(rejected, int):
            return Nack(reason, message, rejected)
    raise MalformedPackageError("a reply is neither a count nor a refusal")
