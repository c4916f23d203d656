"""The package on the wire: msgpack, byte for byte as existing deployments write it.

A body is a map with the one text key "data": a list of rows. Here are the rows themselves decoded, into what a storage
writes (`provgate_storage.rows.rows`), and replies; `row_encoding` encodes rows.
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
from provgate_broker.wire.fixed_layout import read_uniform_rows
from provgate_runtime.counted import counted
from provgate_storage.errors import InvalidValueError
from provgate_storage.model import RelationType
from provgate_storage.rows.bulk import are_ids, are_paths, are_urls, check_each, check_relation_paths, microseconds_of
from provgate_storage.rows.rows import Row
from provgate_storage.rows.values import PATH_MAX_BYTES, URL_MAX_BYTES, check_id, check_path, check_url

CONTENT_TYPE: Final = "application/msgpack"

# A request with this header, set to true, comes from a sender that understands a reply with an error.
NACK_HEADER: Final = "provgate-nack"

_KEY: Final = "data"
_BODY_START: Final = b"\x81\xa4data"

# Map, key, and the header of a list of up to 2**32 - 1 rows.
_START_MAX_BYTES: Final = len(_BODY_START) + 5

# No row is shorter than a list of one empty path.
_ROW_MIN_BYTES: Final = 3

# More than fit into a package of a gateway, 1 MiB, or of any sender that is known.
_MAX_ROWS: Final = 400_000
_ROW_MAX_LENGTH: Final = 3
_TAGGED_MAX_LENGTH: Final = 3
_TIMESTAMP_MAX_BYTES: Final = 12

# A mode of msgpack's. Not the one of integers, which takes an integer for a timestamp.
_TIMESTAMP_AS_DATETIME: Final = 3

_NOTHING_KNOWN: Final = (None, None)


def package_body(rows: Sequence[bytes]) -> bytes:
    """Returns the body of a package of encoded rows."""
    header: bytes = msgpack.Packer().pack_array_header(len(rows))
    return b"".join((_BODY_START, header, *rows))


def decode_package(body: bytes, operation: Operation) -> list[Row]:
    """Returns the rows of a body, each as the storage writes it.

    Sizes and rows are bounded before anything is built of them.

    Args:
        body: as it came.
        operation: that of the queue it came from.

    Raises:
        MalformedPackageError: the body is not a package, or one of its rows is not one of `operation`.
    """
    unpacker = msgpack.Unpacker(
        raw=False,
        # Tuples of plain values: the garbage collector need not look at them again and again.
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
        uniform = read_uniform_rows(memoryview(body)[unpacker.tell() :], row_count, operation)
        if uniform is not None:
            return uniform
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
            f"the body says {counted(row_count, 'row')}, and holds more or fewer, or ends in the middle"
        )
    return rows


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
        raise MalformedPackageError(
            f"the body says {counted(row_count, 'row')}, more than its {counted(body_bytes, 'byte')} can hold"
        )
    if row_count > _MAX_ROWS:
        raise MalformedPackageError(f"the body says {row_count} rows: more than a package may hold, {_MAX_ROWS}")
    return row_count


def _check_lengths(rows: Sequence[Any], *lengths: int) -> None:
    if not set(map(type, rows)) <= {tuple} or not set(map(len, rows)) <= set(lengths):
        raise MalformedPackageError(f"a row is not a list of {' or '.join(map(str, lengths))}")


def _check_ids(ids: Sequence[Any]) -> None:
    check_each(are_ids, check_id, ids)


def _dated_rows(rows: Sequence[Any]) -> list[Row]:
    _check_lengths(rows, 1, 2)
    ids = [row[0] for row in rows]
    _check_ids(ids)
    dates = microseconds_of([row[1] if len(row) == 2 else None for row in rows])
    return list(zip(ids, dates, strict=True))


def _location_rows(rows: Sequence[Any]) -> list[Row]:
    _check_lengths(rows, 1)
    check_each(are_paths, check_path, [row[0] for row in rows])
    return list(rows)


def _origin_rows(rows: Sequence[Any]) -> list[Row]:
    _check_lengths(rows, 2)
    _check_ids([row[0] for row in rows])
    check_each(are_urls, check_url, [row[1] for row in rows])
    return list(rows)


def _revision_rows(rows: Sequence[Any]) -> list[Row]:
    _check_lengths(rows, 1, 2)
    ids = [row[0] for row in rows]
    _check_ids(ids)
    known = [_revision_data(row[1]) if len(row) == 2 else _NOTHING_KNOWN for row in rows]
    dates = microseconds_of([date for date, _ in known])
    origins = [origin for _, origin in known]
    _check_ids([origin for origin in origins if origin is not None])
    return list(zip(ids, dates, origins, strict=True))


def _relation_rows(relation: RelationType, rows: Sequence[Any]) -> list[Row]:
    _check_lengths(rows, 3)
    _check_ids([row[0] for row in rows])
    _check_ids([row[1] for row in rows])
    check_relation_paths(relation, [row[2] for row in rows])
    return list(rows) if relation.has_path else [row[:2] for row in rows]


_READERS: Final[Mapping[Operation, Callable[[Sequence[Any]], list[Row]]]] = {
    Operation(WriteMethod.CONTENT_ADD): _dated_rows,
    Operation(WriteMethod.DIRECTORY_ADD): _dated_rows,
    Operation(WriteMethod.LOCATION_ADD): _location_rows,
    Operation(WriteMethod.ORIGIN_ADD): _origin_rows,
    Operation(WriteMethod.REVISION_ADD): _revision_rows,
} | {Operation(WriteMethod.RELATION_ADD, relation): partial(_relation_rows, relation) for relation in RelationType}


def _revision_data(value: Any) -> tuple[Any, Any]:
    """Returns date and origin of the tagged map that existing deployments write."""
    try:
        fields = value[b"d"]
        if value[b"swhtype"] == "dataclass" and fields["__type__"] == "RevisionData" and len(value) + len(fields) == 5:
            return fields["date"], fields["origin"]
    except (TypeError, KeyError):
        # Not with the keys that most write, or not such a map at all.
        pass
    return _any_revision_data(value)


def _any_revision_data(value: object) -> tuple[Any, Any]:
    tagged = _text_keys(value)
    if set(tagged) != {"swhtype", "d"} or tagged["swhtype"] != "dataclass":
        raise MalformedPackageError("a revision's data has an unknown tag")
    fields = _text_keys(tagged["d"])
    if set(fields) != {"date", "origin", "__type__"} or fields["__type__"] != "RevisionData":
        raise MalformedPackageError("a revision's data is not a RevisionData")
    return fields["date"], fields["origin"]


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
