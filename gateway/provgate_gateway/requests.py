"""From request messages to entries: the one place where what clients send is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, Generic, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from provgate.v1 import model_pb2, provenance_storage_pb2
from provgate_broker.topology import Operation, WriteMethod
from provgate_broker.wire import Entry
from provgate_gateway.errors import invalid
from provgate_storage.errors import InvalidValue, InvalidValueError
from provgate_storage.model import EntityType, Id, RelationType, RevisionData
from provgate_storage.values import check_id, check_path, check_relation_path, check_url

T = TypeVar("T")
M = TypeVar("M", bound=Message)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS_MIN: Final = -62_135_596_800  # 0001-01-01T00:00:00Z
_SECONDS_MAX: Final = 253_402_300_799  # 9999-12-31T23:59:59Z
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
        entries: checks a message, and returns what is in it. Raises `CallError`, as `operation` does.
    """

    decode: Callable[[bytes], M]
    operation: Callable[[M], Operation]
    entries: Callable[[M], list[Entry]]


class _FieldError(Exception):
    """A field of an entry is at fault."""

    def __init__(self, field: str, error: InvalidValueError) -> None:
        super().__init__(field)
        self.field = field
        self.error = error


def content_entries(request: provenance_storage_pb2.ContentAddRequest) -> list[Entry]:
    """Returns the entries of a ContentAdd message. Raises `CallError`, as all functions here do."""
    return _entries("contents", request.contents, _dated)


def directory_entries(request: provenance_storage_pb2.DirectoryAddRequest) -> list[Entry]:
    """Returns the entries of a DirectoryAdd message."""
    return _entries("directories", request.directories, _dated)


def revision_entries(request: provenance_storage_pb2.RevisionAddRequest) -> list[Entry]:
    """Returns the entries of a RevisionAdd message."""
    return _entries("revisions", request.revisions, _revision)


def origin_entries(request: provenance_storage_pb2.OriginAddRequest) -> list[Entry]:
    """Returns the entries of an OriginAdd message."""
    return _entries("origins", request.origins, _origin)


def location_entries(request: provenance_storage_pb2.LocationAddRequest) -> list[Entry]:
    """Returns the entries of a LocationAdd message."""
    return _entries("paths", request.paths, _location)


def relation_entries(request: provenance_storage_pb2.RelationAddRequest) -> list[Entry]:
    """Returns the entries of a RelationAdd message."""
    relation = relation_type(request.relation)
    return _entries("relations", request.relations, partial(_relation, relation))


def relation_operation(request: provenance_storage_pb2.RelationAddRequest) -> Operation:
    """Returns the operation of a RelationAdd message."""
    return Operation(WriteMethod.RELATION_ADD, relation_type(request.relation))


def relation_type(number: int) -> RelationType:
    """Returns the relation of an enum field named `relation`."""
    return _of_enum(RELATION_TYPES, number, "relation")


def entity_type(number: int) -> EntityType:
    """Returns the entity type of an enum field named `entity`."""
    return _of_enum(ENTITY_TYPES, number, "entity")


def ids(values: Sequence[bytes]) -> list[Id]:
    """Returns the ids of a repeated field named `ids`."""
    checked = []
    try:
        for value in values:
            checked.append(check_id(value))  # noqa: PERF401 - the length tells which value is at fault
    except InvalidValueError as error:
        raise invalid(error, f"ids[{len(checked)}]") from error
    return checked


def checked(check: Callable[[object], T], value: object, field_path: str) -> T:
    """Returns what `check` makes of a single field."""
    try:
        return check(value)
    except InvalidValueError as error:
        raise invalid(error, field_path) from error


def date_of(timestamp: Timestamp) -> datetime:
    """Returns a timestamp as a date, floored to microseconds. Raises `InvalidValueError`."""
    seconds, nanos = timestamp.seconds, timestamp.nanos
    if not _SECONDS_MIN <= seconds <= _SECONDS_MAX:
        raise InvalidValueError(InvalidValue.DATE, "a date is in the years 1 to 9999")
    if not 0 <= nanos <= _NANOS_MAX:
        raise InvalidValueError(InvalidValue.DATE, f"the nanos of a date are 0 to {_NANOS_MAX}, not {nanos}")
    return _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)


def _entries(name: str, items: Iterable[Any], to_entry: Callable[[Any], Entry]) -> list[Entry]:
    entries: list[Entry] = []
    try:
        for item in items:
            entries.append(to_entry(item))  # noqa: PERF401 - the length tells which item is at fault
    except _FieldError as fault:
        raise invalid(fault.error, f"{name}[{len(entries)}]{fault.field}") from fault
    return entries


def _dated(entity: model_pb2.Content | model_pb2.Directory) -> Entry:
    field = ".id"
    try:
        id = check_id(entity.id)
        if not entity.HasField("date"):
            return (id,)
        field = ".date"
        return (id, date_of(entity.date))
    except InvalidValueError as error:
        raise _FieldError(field, error) from error


def _revision(revision: model_pb2.Revision) -> Entry:
    field = ".id"
    try:
        id = check_id(revision.id)
        field = ".date"
        date = date_of(revision.date) if revision.HasField("date") else None
        field = ".origin"
        origin = check_id(revision.origin) if revision.HasField("origin") else None
    except InvalidValueError as error:
        raise _FieldError(field, error) from error
    if date is None and origin is None:
        return (id,)
    return (id, RevisionData(date, origin))


def _origin(origin: model_pb2.Origin) -> Entry:
    field = ".id"
    try:
        id = check_id(origin.id)
        field = ".url"
        return (id, check_url(origin.url))
    except InvalidValueError as error:
        raise _FieldError(field, error) from error


def _location(path: bytes) -> Entry:
    try:
        return (check_path(path),)
    except InvalidValueError as error:
        raise _FieldError("", error) from error


def _relation(relation: RelationType, row: model_pb2.Relation) -> Entry:
    field = ".src"
    try:
        src = check_id(row.src)
        field = ".dst"
        dst = check_id(row.dst)
        field = ".path"
        return (src, dst, check_relation_path(relation, row.path if row.HasField("path") else None))
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
    provenance_storage_pb2.ContentAddRequest.FromString, _always(WriteMethod.CONTENT_ADD), content_entries
)
DIRECTORY_ADD: Final = MessageKind(
    provenance_storage_pb2.DirectoryAddRequest.FromString, _always(WriteMethod.DIRECTORY_ADD), directory_entries
)
REVISION_ADD: Final = MessageKind(
    provenance_storage_pb2.RevisionAddRequest.FromString, _always(WriteMethod.REVISION_ADD), revision_entries
)
ORIGIN_ADD: Final = MessageKind(
    provenance_storage_pb2.OriginAddRequest.FromString, _always(WriteMethod.ORIGIN_ADD), origin_entries
)
LOCATION_ADD: Final = MessageKind(
    provenance_storage_pb2.LocationAddRequest.FromString, _always(WriteMethod.LOCATION_ADD), location_entries
)
RELATION_ADD: Final = MessageKind(
    provenance_storage_pb2.RelationAddRequest.FromString, relation_operation, relation_entries
)
