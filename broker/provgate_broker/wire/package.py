"""Encodes and decodes packages and replies: msgpack, byte for byte as existing deployments write it.

The body of a package is a map with one key, "data", whose value is a list of rows. `rows.py` encodes the rows. This
file decodes them to the rows that a storage writes (`provgate_storage.rows.rows`), and has the replies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final, TypeAlias

import msgpack

from provgate_broker.errors import MalformedPackageError
from provgate_broker.topology.policy import Operation, WriteMethod
from provgate_broker.wire.fixed_layout import read_fixed_layout
from provgate_runtime.counted import counted
from provgate_storage.errors import InvalidValueError
from provgate_storage.model import RelationType
from provgate_storage.rows.rows import Row
from provgate_storage.rows.values import (
    PATH_MAX_BYTES,
    URL_MAX_BYTES,
    are_ids,
    are_paths,
    are_urls,
    check_each,
    check_id,
    check_path,
    check_relation_paths,
    check_url,
    microseconds_of,
)

CONTENT_TYPE: Final = "application/msgpack"

NACK_HEADER: Final = "provgate-nack"
"""A package whose header of this name is true comes from a sender that understands a `Nack`."""

_KEY: Final = "data"
_BODY_START: Final = b"\x81\xa4data"

# Map, key, and the header of a list of up to 2**32 - 1 rows.
_START_MAX_BYTES: Final = len(_BODY_START) + 5

# No row is shorter than a list of one empty path.
_ROW_MIN_BYTES: Final = 3

# More than fit into a gateway's package (1 MiB), and more than any known sender puts into one.
_MAX_ROWS: Final = 400_000
_ROW_MAX_LENGTH: Final = 3
_TAGGED_MAX_LENGTH: Final = 3
_TIMESTAMP_MAX_BYTES: Final = 12

# msgpack's mode for datetime objects. Its mode for integers would accept an integer as a timestamp.
_TIMESTAMP_AS_DATETIME: Final = 3


def package_body(rows: Sequence[bytes]) -> bytes:
    """Returns the body of a package of encoded rows."""
    header: bytes = msgpack.Packer().pack_array_header(len(rows))
    return b"".join((_BODY_START, header, *rows))


def decode_package(body: bytes, operation: Operation) -> list[Row]:
    """Returns the rows of a body, as the storage writes them.

    The count and sizes that the body claims are checked before memory is allocated for them.

    Args:
        body: the body.
        operation: the operation of the package's queue.

    Raises:
        MalformedPackageError: the body is not a package, or a row does not fit `operation`.
    """
    unpacker = msgpack.Unpacker(
        raw=False,
        # The garbage collector does not scan tuples of plain values again and again.
        use_list=False,
        timestamp=_TIMESTAMP_AS_DATETIME,
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
        fixed = read_fixed_layout(memoryview(body)[unpacker.tell() :], row_count, operation)
        if fixed is not None:
            return fixed
        rows = _READERS[operation](list(islice(unpacker, row_count)))
        trailing = unpacker.tell() != len(body)
    except InvalidValueError as error:
        raise MalformedPackageError(str(error)) from error
    except (ValueError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise MalformedPackageError(
            f"the body is not msgpack that a package may hold ({type(error).__name__})"
        ) from error
    if trailing or len(rows) != row_count:
        raise MalformedPackageError(
            f"the body claims {counted(row_count, 'row')}, and holds more or fewer, or ends in the middle"
        )
    return rows


def claimed_row_count(body: bytes) -> int:
    """Returns the number of rows that a body claims, without decoding them; 0 if it is not a package."""
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
        raise MalformedPackageError(
            f"the body claims {counted(row_count, 'row')}, more than its {counted(body_bytes, 'byte')} can hold"
        )
    if row_count > _MAX_ROWS:
        raise MalformedPackageError(f"the body claims {row_count} rows; the maximum is {_MAX_ROWS}")
    return row_count


def _check_lengths(rows: Sequence[Row], *lengths: int) -> None:
    if not set(map(type, rows)) <= {tuple} or not set(map(len, rows)) <= set(lengths):
        raise MalformedPackageError(f"a row is not a list of {' or '.join(map(str, lengths))}")


def _dated_rows(rows: Sequence[Row]) -> list[Row]:
    _check_lengths(rows, 1, 2)
    ids = [row[0] for row in rows]
    check_each(are_ids, check_id, ids)
    dates = microseconds_of([row[1] if len(row) == 2 else None for row in rows])
    return list(zip(ids, dates, strict=True))


def _location_rows(rows: Sequence[Row]) -> list[Row]:
    _check_lengths(rows, 1)
    check_each(are_paths, check_path, [row[0] for row in rows])
    return list(rows)


def _origin_rows(rows: Sequence[Row]) -> list[Row]:
    _check_lengths(rows, 2)
    check_each(are_ids, check_id, [row[0] for row in rows])
    check_each(are_urls, check_url, [row[1] for row in rows])
    return list(rows)


def _revision_rows(rows: Sequence[Row]) -> list[Row]:
    _check_lengths(rows, 1, 2)
    ids = [row[0] for row in rows]
    check_each(are_ids, check_id, ids)
    data = [_revision_data(row[1]) if len(row) == 2 else (None, None) for row in rows]
    dates = microseconds_of([date for date, _ in data])
    origins = [origin for _, origin in data]
    check_each(are_ids, check_id, [origin for origin in origins if origin is not None])
    return list(zip(ids, dates, origins, strict=True))


def _relation_rows(relation: RelationType, rows: Sequence[Row]) -> list[Row]:
    _check_lengths(rows, 3)
    check_each(are_ids, check_id, [row[0] for row in rows])
    check_each(are_ids, check_id, [row[1] for row in rows])
    check_relation_paths(relation, [row[2] for row in rows])
    return list(rows) if relation.has_path else [row[:2] for row in rows]


_READERS: Final[Mapping[Operation, Callable[[Sequence[Row]], list[Row]]]] = {
    Operation(WriteMethod.CONTENT_ADD): _dated_rows,
    Operation(WriteMethod.DIRECTORY_ADD): _dated_rows,
    Operation(WriteMethod.LOCATION_ADD): _location_rows,
    Operation(WriteMethod.ORIGIN_ADD): _origin_rows,
    Operation(WriteMethod.REVISION_ADD): _revision_rows,
} | {Operation(WriteMethod.RELATION_ADD, relation): partial(_relation_rows, relation) for relation in RelationType}


def _revision_data(value: Any) -> tuple[Any, Any]:
    """Returns date and origin of the tagged map that existing deployments write for the data of a revision."""
    try:
        fields = value[b"d"]
        if value[b"swhtype"] == "dataclass" and fields["__type__"] == "RevisionData" and len(value) + len(fields) == 5:
            return fields["date"], fields["origin"]
    except (TypeError, KeyError):
        # Other types of keys than most senders use, or not such a map.
        pass
    tagged = _text_keys(value)
    if set(tagged) != {"swhtype", "d"} or tagged["swhtype"] != "dataclass":
        raise MalformedPackageError("a revision's data has an unknown tag")
    fields = _text_keys(tagged["d"])
    if set(fields) != {"date", "origin", "__type__"} or fields["__type__"] != "RevisionData":
        raise MalformedPackageError("a revision's data is not a RevisionData")
    return fields["date"], fields["origin"]


def _text_keys(value: object) -> dict[str, Any]:
    # Deployments differ in whether they write a key as bytes or as text.
    if not isinstance(value, dict):
        raise MalformedPackageError("a revision's data is not a map")
    keyed = {key.decode("ascii") if isinstance(key, bytes) else key: item for key, item in value.items()}
    if len(keyed) != len(value):
        raise MalformedPackageError("a revision's data has a key twice")
    return keyed


@dataclass(frozen=True, slots=True)
class Nack:
    """The reply of a worker that refused a package: none of its entries is stored.

    Attributes:
        error: the reason for programs, one word.
        message: the reason for people.
        rejected_count: the number of entries.
    """

    error: str
    message: str
    rejected_count: int


Reply: TypeAlias = int | Nack
"""The reply of a worker: the number of committed entries, or a refusal."""

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
        MalformedPackageError: the body is not a reply.
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
