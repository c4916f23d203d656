"""From request messages to rows: with `columns` the one place where requests are checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from provgate.v1 import model_pb2
from provgate.v1 import provenance_storage_pb2 as pb2
from provgate_broker.topology.policy import Operation, WriteMethod
from provgate_gateway.errors import invalid, malformed, too_many_ids
from provgate_gateway.rpc import columns
from provgate_storage.errors import InvalidValue, InvalidValueError
from provgate_storage.model import EntityType, Id, RelationType
from provgate_storage.rows.rows import Row
from provgate_storage.rows.values import (
    MICROSECONDS_OF_SECOND,
    are_paths,
    check_id,
    check_microseconds,
    check_path,
    check_relation_path,
    check_url,
)

T = TypeVar("T")
C = TypeVar("C")
M = TypeVar("M", bound=Message)

IDS_MAX: Final = 100_000
"""The most ids of one read."""

_NANOS_MAX: Final = 999_999_999

_RELATION_TYPES: Final[Mapping[int, RelationType]] = {
    model_pb2.RelationType.Value(f"RELATION_TYPE_{relation.name}"): relation for relation in RelationType
}
_ENTITY_TYPES: Final[Mapping[int, EntityType]] = {
    model_pb2.EntityType.Value(f"ENTITY_TYPE_{entity.name}"): entity for entity in EntityType
}


@dataclass(frozen=True, slots=True)
class MessageKind(Generic[M]):
    """The messages of one RPC that writes.

    Attributes:
        decode: makes a message of bytes. Raises `DecodeError`.
        operation: returns the operation of a message.
        rows: checks a message, and returns its rows. Raises `CallError`, as `operation` does.
        columns_field: the number of the field with columns; None if there is none.
        growth: the size of a large message's packages by its own size, at most, with packages of the default size.
    """

    decode: Callable[[bytes], M]
    operation: Callable[[M], Operation]
    rows: Callable[[M], list[Row]]
    columns_field: int | None
    growth: float


class _FieldError(Exception):
    """A field of an entry is invalid."""

    def __init__(self, field: str, error: InvalidValueError) -> None:
        super().__init__(field)
        self.field = field
        self.error = error


def content_rows(request: pb2.ContentAddRequest) -> list[Row]:
    """Returns the rows of a ContentAdd message. Raises `CallError`, as all functions here do."""
    return _rows(request.contents, "contents", _dated_row, request.columns, columns.dated_rows)


def directory_rows(request: pb2.DirectoryAddRequest) -> list[Row]:
    """Returns the rows of a DirectoryAdd message."""
    return _rows(request.directories, "directories", _dated_row, request.columns, columns.dated_rows)


def revision_rows(request: pb2.RevisionAddRequest) -> list[Row]:
    """Returns the rows of a RevisionAdd message."""
    return _rows(request.revisions, "revisions", _revision_row, request.columns, columns.revision_rows)


def origin_rows(request: pb2.OriginAddRequest) -> list[Row]:
    """Returns the rows of an OriginAdd message."""
    return _rows(request.origins, "origins", _origin_row, request.columns, columns.origin_rows)


def location_rows(request: pb2.LocationAddRequest) -> list[Row]:
    """Returns the rows of a LocationAdd message."""
    paths = list(request.paths)
    columns.check_column(are_paths, check_path, paths, "paths")
    return [(path,) for path in paths]


def relation_rows(request: pb2.RelationAddRequest) -> list[Row]:
    """Returns the rows of a RelationAdd message."""
    relation = relation_type(request.relation)
    return _rows(
        request.relations,
        "relations",
        partial(_relation_row, relation),
        request.columns,
        partial(columns.relation_rows, relation),
    )


def relation_operation(request: pb2.RelationAddRequest) -> Operation:
    """Returns the operation of a RelationAdd message."""
    return Operation(WriteMethod.RELATION_ADD, relation_type(request.relation))


def relation_type(number: int) -> RelationType:
    """Returns the relation of an enum field named `relation`."""
    return _enum_value(_RELATION_TYPES, number, "relation")


def entity_type(number: int) -> EntityType:
    """Returns the entity type of an enum field named `entity`."""
    return _enum_value(_ENTITY_TYPES, number, "entity")


def decoded(request_type: type[M], body: bytes) -> M:
    """Returns the request of a read."""
    try:
        return request_type.FromString(body)
    except DecodeError as error:
        raise malformed() from error


def ids(values: Sequence[bytes]) -> list[Id]:
    """Returns the ids of a repeated field named `ids`, of a read."""
    if len(values) > IDS_MAX:
        raise too_many_ids(IDS_MAX)
    return columns.ids(values, "ids")


def checked(check: Callable[[object], T], value: object, field_path: str) -> T:
    """Returns what `check` returns for a single field."""
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
    entries: Iterable[T],
    name: str,
    to_row: Callable[[T], Row],
    blocks: Iterable[C],
    to_rows: Callable[[C, str], list[Row]],
) -> list[Row]:
    """Returns the rows of the repeated field `name` of a message, then those of its columns."""
    rows: list[Row] = []
    try:
        for entry in entries:
            rows.append(to_row(entry))  # noqa: PERF401 - the length is the index of the invalid entry
    except _FieldError as fault:
        raise invalid(fault.error, f"{name}[{len(rows)}]{fault.field}") from fault
    for number, block in enumerate(blocks):
        rows += to_rows(block, f"columns[{number}]")
    return rows


def _dated_row(entity: model_pb2.Content | model_pb2.Directory) -> Row:
    field = ".id"
    try:
        id = check_id(entity.id)
        field = ".date"
        return (id, microseconds_of(entity.date) if entity.HasField("date") else None)
    except InvalidValueError as error:
        raise _FieldError(field, error) from error


def _revision_row(revision: model_pb2.Revision) -> Row:
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


def _origin_row(origin: model_pb2.Origin) -> Row:
    field = ".id"
    try:
        id = check_id(origin.id)
        field = ".url"
        return (id, check_url(origin.url))
    except InvalidValueError as error:
        raise _FieldError(field, error) from error


def _relation_row(relation: RelationType, row: model_pb2.Relation) -> Row:
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


def _enum_value(known: Mapping[int, T], number: int, field_path: str) -> T:
    value = known.get(number)
    if value is None:
        problem = "unspecified" if number == 0 else f"{number}, which is not known"
        raise invalid(InvalidValueError(InvalidValue.ENUM, f"the value is {problem}"), field_path)
    return value


def _kind(request_type: type[M], method: WriteMethod, rows: Callable[[M], list[Row]], growth: float) -> MessageKind[M]:
    operation = Operation(method)
    return MessageKind(request_type.FromString, lambda _: operation, rows, _columns_field(request_type), growth)


def _columns_field(request_type: type[Message]) -> int | None:
    field = request_type.DESCRIPTOR.fields_by_name.get("columns")
    return None if field is None else field.number


CONTENT_ADD: Final = _kind(pb2.ContentAddRequest, WriteMethod.CONTENT_ADD, content_rows, 1.25)
DIRECTORY_ADD: Final = _kind(pb2.DirectoryAddRequest, WriteMethod.DIRECTORY_ADD, directory_rows, 1.25)
# Each row of a package is a map with the names of its fields.
REVISION_ADD: Final = _kind(pb2.RevisionAddRequest, WriteMethod.REVISION_ADD, revision_rows, 4.0)
ORIGIN_ADD: Final = _kind(pb2.OriginAddRequest, WriteMethod.ORIGIN_ADD, origin_rows, 1.25)
# An empty path takes three bytes of a package, and two of a message.
LOCATION_ADD: Final = _kind(pb2.LocationAddRequest, WriteMethod.LOCATION_ADD, location_rows, 1.6)
RELATION_ADD: Final = MessageKind(
    pb2.RelationAddRequest.FromString,
    relation_operation,
    relation_rows,
    _columns_field(pb2.RelationAddRequest),
    1.25,
)
