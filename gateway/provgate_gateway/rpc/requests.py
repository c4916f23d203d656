"""From request messages to rows: with `columns` the one place where what clients send is checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from provgate.v1 import model_pb2, provenance_storage_pb2
from provgate_broker.topology.policy import Operation, WriteMethod
from provgate_gateway.errors import invalid, malformed, too_many_ids
from provgate_gateway.rpc import columns
from provgate_storage.errors import InvalidValue, InvalidValueError
from provgate_storage.model import EntityType, Id, RelationType
from provgate_storage.rows.bulk import are_paths
from provgate_storage.rows.rows import Row
from provgate_storage.rows.values import (
    MICROSECONDS_OF_SECOND,
    check_id,
    check_microseconds,
    check_path,
    check_relation_path,
    check_url,
)

# Requests are decoded by the servicer, where that matters: when, and what is said of one that is not a message.
#
# gRPC for Python ends a call whose request cannot be decoded with INTERNAL and says nothing more. Decoded, a request
# takes several times its size, for as long as a write waits to be admitted, or a read for its turn.

Q = TypeVar("Q")
R = TypeVar("R")


class DecodingInterceptor(grpc.aio.ServerInterceptor):
    """Gives the methods of a service each request as the bytes that came.

    Args:
        service: the full name of the service that knows what to make of them.
    """

    def __init__(self, service: str) -> None:
        self._prefix = f"/{service}/"

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Q, R] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Q, R] | None:
        """Leaves the method's deserializer out."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(self._prefix):
            return handler
        return handler._replace(request_deserializer=None)  # type: ignore[attr-defined, no-any-return]


# How many entries an encoded message has, told before it is decoded: in a few MiB there can be millions.
#
# Two million empty paths take 60 MiB when they are decoded and 300 when they are rows; to count them costs a look at
# the header of each. https://protobuf.dev/programming-guides/encoding/

_VARINT, _FIXED_64, _LENGTH, _GROUP_START, _GROUP_END, _FIXED_32 = range(6)
_RUN_MAX: Final = 4096
_FIXED_SIZES: Final = {_FIXED_64: 8, _FIXED_32: 4, _GROUP_START: 0, _GROUP_END: 0}


def entry_count(body: bytes, columns_field: int | None, most: int) -> int:
    """Returns how many entries a request message has, or any number above `most` where there are more.

    Of a message that cannot be decoded, those before the fault count.

    Args:
        body: the message, encoded.
        columns_field: the number of the field with columns; None where there is none.
        most: where counting ends.
    """
    count = 0
    try:
        for number, times, start, end in _fields(body, 0, len(body), columns_field):
            count += times if number != columns_field else _longest_column(body, start, end, most)
            if count > most:
                break
    except LookupError:  # it ends within a field, or has one of no known type
        pass
    return count


def _longest_column(body: bytes, start: int, end: int, most: int) -> int:
    """Returns the length of the longest column of a block, at least 1. A packed column counts as one value."""
    lengths = Counter[int]()
    for number, times, _, _ in _fields(body, start, end, None):
        lengths[number] += times
        if lengths[number] > most:
            break
    return max(lengths.values(), default=1)


def _fields(body: bytes, position: int, end: int, single: int | None) -> Iterator[tuple[int, int, int, int]]:
    """Yields number and length of runs of one field, and where the first value begins and ends, but no numbers.

    Fields numbered `single` come one by one.
    """
    while position < end:
        tag, position = _varint(body, position)
        number, wire_type = tag >> 3, tag & 7
        times = 1
        start, position = _value(body, position, wire_type)
        value_end = position
        if wire_type == _LENGTH and number != single:
            # Nearly all there is: values of one field, of up to 16 KiB.
            while position < end and body[position] == tag and times < _RUN_MAX:
                size = body[position + 1]
                if size < 0x80:
                    position += 2 + size
                elif body[position + 2] < 0x80:
                    position += 3 + (size & 0x7F | body[position + 2] << 7)
                else:
                    break
                times += 1
        if position > end:
            raise IndexError
        if wire_type == _LENGTH:
            yield number, times, start, value_end


def _value(body: bytes, position: int, wire_type: int) -> tuple[int, int]:
    """Returns where a value begins and ends."""
    if wire_type == _LENGTH:
        size, position = _varint(body, position)
        return position, position + size
    if wire_type == _VARINT:
        return position, _varint(body, position)[1]
    return position, position + _FIXED_SIZES[wire_type]


def _varint(body: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = body[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise IndexError


T = TypeVar("T")
M = TypeVar("M", bound=Message)

IDS_MAX: Final = 100_000
"""The most ids of one read."""

_NANOS_MAX: Final = 999_999_999

RELATION_TYPES: Final = {
    model_pb2.RELATION_TYPE_CNT_EARLY_IN_REV: RelationType.CNT_EARLY_IN_REV,
    model_pb2.RELATION_TYPE_CNT_IN_DIR: RelationType.CNT_IN_DIR,
    model_pb2.RELATION_TYPE_DIR_IN_REV: RelationType.DIR_IN_REV,
    model_pb2.RELATION_TYPE_REV_IN_ORG: RelationType.REV_IN_ORG,
    model_pb2.RELATION_TYPE_REV_BEFORE_REV: RelationType.REV_BEFORE_REV,
}
ENTITY_TYPES: Final = {
    model_pb2.ENTITY_TYPE_CONTENT: EntityType.CONTENT,
    model_pb2.ENTITY_TYPE_DIRECTORY: EntityType.DIRECTORY,
    model_pb2.ENTITY_TYPE_REVISION: EntityType.REVISION,
    model_pb2.ENTITY_TYPE_ORIGIN: EntityType.ORIGIN,
}


@dataclass(frozen=True, slots=True)
class MessageKind(Generic[M]):
    """What is in the messages of a write.

    Attributes:
        decode: makes a message of bytes. Raises `DecodeError`.
        operation: tells what a message adds.
        rows: checks a message, and returns what is in it. Raises `CallError`, as `operation` does.
        columns_field: the number of its field of columns; None where it has none.
        growth: by how much the packages of a large message are larger than it is, at most, with packages of the usual
            size.
    """

    decode: Callable[[bytes], M]
    operation: Callable[[M], Operation]
    rows: Callable[[M], list[Row]]
    columns_field: int | None = None
    growth: float = 1.25


class _FieldError(Exception):
    """A field of an entry is at fault."""

    def __init__(self, field: str, error: InvalidValueError) -> None:
        super().__init__(field)
        self.field = field
        self.error = error


def content_rows(request: provenance_storage_pb2.ContentAddRequest) -> list[Row]:
    """Returns the rows of a ContentAdd message. Raises `CallError`, as all functions here do."""
    return _rows(request, "contents", _dated, columns.dated_rows)


def directory_rows(request: provenance_storage_pb2.DirectoryAddRequest) -> list[Row]:
    """Returns the rows of a DirectoryAdd message."""
    return _rows(request, "directories", _dated, columns.dated_rows)


def revision_rows(request: provenance_storage_pb2.RevisionAddRequest) -> list[Row]:
    """Returns the rows of a RevisionAdd message."""
    return _rows(request, "revisions", _revision, columns.revision_rows)


def origin_rows(request: provenance_storage_pb2.OriginAddRequest) -> list[Row]:
    """Returns the rows of an OriginAdd message."""
    return _rows(request, "origins", _origin, columns.origin_rows)


def location_rows(request: provenance_storage_pb2.LocationAddRequest) -> list[Row]:
    """Returns the rows of a LocationAdd message."""
    paths = list(request.paths)
    columns.check_column(are_paths, check_path, paths, "paths")
    return [(path,) for path in paths]


def relation_rows(request: provenance_storage_pb2.RelationAddRequest) -> list[Row]:
    """Returns the rows of a RelationAdd message."""
    relation = relation_type(request.relation)
    return _rows(request, "relations", partial(_relation, relation), partial(columns.relation_rows, relation))


def relation_operation(request: provenance_storage_pb2.RelationAddRequest) -> Operation:
    """Returns the operation of a RelationAdd message."""
    return Operation(WriteMethod.RELATION_ADD, relation_type(request.relation))


def relation_type(number: int) -> RelationType:
    """Returns the relation of an enum field named `relation`."""
    return _of_enum(RELATION_TYPES, number, "relation")


def entity_type(number: int) -> EntityType:
    """Returns the entity type of an enum field named `entity`."""
    return _of_enum(ENTITY_TYPES, number, "entity")


def decoded(kind: type[M], body: bytes) -> M:
    """Returns the request of a read."""
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise malformed() from error


def ids(values: Sequence[bytes]) -> list[Id]:
    """Returns the ids of a repeated field named `ids`, of a read."""
    if len(values) > IDS_MAX:
        raise too_many_ids(IDS_MAX)
    return columns.ids(values, "ids")


def checked(check: Callable[[object], T], value: object, field_path: str) -> T:
    """Returns what `check` makes of a single field."""
    try:
        return check(value)
    except InvalidValueError as error:
        raise invalid(error, field_path) from error


def microseconds_of(timestamp: Timestamp) -> int:
    """Returns a timestamp in microseconds since 1970-01-01T00:00:00Z, floored. Raises `InvalidValueError`."""
    seconds, nanos = timestamp.seconds, timestamp.nanos
    if not 0 <= nanos <= _NANOS_MAX:
        raise InvalidValueError(InvalidValue.DATE, f"the nanos of a date are 0 to {_NANOS_MAX}, not {nanos}")
    return check_microseconds(seconds * MICROSECONDS_OF_SECOND + nanos // 1000)


def _rows(
    request: Any, name: str, to_row: Callable[[Any], Row], from_columns: Callable[[Any, str], list[Row]]
) -> list[Row]:
    """Returns what is in the field `name` of a message, and then what is in its columns."""
    rows: list[Row] = []
    try:
        for item in getattr(request, name):
            rows.append(to_row(item))  # noqa: PERF401 - the length tells which item is at fault
    except _FieldError as fault:
        raise invalid(fault.error, f"{name}[{len(rows)}]{fault.field}") from fault
    for number, block in enumerate(request.columns):
        rows += from_columns(block, f"columns[{number}]")
    return rows


def _dated(entity: model_pb2.Content | model_pb2.Directory) -> Row:
    field = ".id"
    try:
        id = check_id(entity.id)
        field = ".date"
        return (id, microseconds_of(entity.date) if entity.HasField("date") else None)
    except InvalidValueError as error:
        raise _FieldError(field, error) from error


def _revision(revision: model_pb2.Revision) -> Row:
    field = ".id"
    try:
        id = check_id(revision.id)
        field = ".date"
        date = microseconds_of(revision.date) if revision.HasField("date") else None
        field = ".origin"
        origin = check_id(revision.origin) if revision.HasField("origin") else None
    except InvalidValueError as error:
        raise _FieldError(field, error) from error
    return (id, date, origin)


def _origin(origin: model_pb2.Origin) -> Row:
    field = ".id"
    try:
        id = check_id(origin.id)
        field = ".url"
        return (id, check_url(origin.url))
    except InvalidValueError as error:
        raise _FieldError(field, error) from error


def _relation(relation: RelationType, row: model_pb2.Relation) -> Row:
    field = ".src"
    try:
        src = check_id(row.src)
        field = ".dst"
        dst = check_id(row.dst)
        field = ".path"
        path = check_relation_path(relation, row.path if row.HasField("path") else None)
        return (src, dst, path) if relation.has_path else (src, dst)
    except InvalidValueError as error:
        raise _FieldError(field, error) from error


def _of_enum(known: dict[Any, T], number: int, field_path: str) -> T:
    value = known.get(number)
    if value is None:
        what = "unspecified" if number == 0 else f"{number}, which is not known"
        raise invalid(InvalidValueError(InvalidValue.ENUM, f"the value is {what}"), field_path)
    return value


def _always(method: WriteMethod) -> Callable[[Message], Operation]:
    operation = Operation(method)
    return lambda _: operation


CONTENT_ADD: Final = MessageKind(
    provenance_storage_pb2.ContentAddRequest.FromString,
    _always(WriteMethod.CONTENT_ADD),
    content_rows,
    provenance_storage_pb2.ContentAddRequest.COLUMNS_FIELD_NUMBER,
)
DIRECTORY_ADD: Final = MessageKind(
    provenance_storage_pb2.DirectoryAddRequest.FromString,
    _always(WriteMethod.DIRECTORY_ADD),
    directory_rows,
    provenance_storage_pb2.DirectoryAddRequest.COLUMNS_FIELD_NUMBER,
)
REVISION_ADD: Final = MessageKind(
    provenance_storage_pb2.RevisionAddRequest.FromString,
    _always(WriteMethod.REVISION_ADD),
    revision_rows,
    provenance_storage_pb2.RevisionAddRequest.COLUMNS_FIELD_NUMBER,
    # Each row is a map, with the names of its fields.
    growth=4.0,
)
ORIGIN_ADD: Final = MessageKind(
    provenance_storage_pb2.OriginAddRequest.FromString,
    _always(WriteMethod.ORIGIN_ADD),
    origin_rows,
    provenance_storage_pb2.OriginAddRequest.COLUMNS_FIELD_NUMBER,
)
LOCATION_ADD: Final = MessageKind(
    provenance_storage_pb2.LocationAddRequest.FromString,
    _always(WriteMethod.LOCATION_ADD),
    location_rows,
    # An empty path takes three bytes of a package, and two of a message.
    growth=1.6,
)
RELATION_ADD: Final = MessageKind(
    provenance_storage_pb2.RelationAddRequest.FromString,
    relation_operation,
    relation_rows,
    provenance_storage_pb2.RelationAddRequest.COLUMNS_FIELD_NUMBER,
)
