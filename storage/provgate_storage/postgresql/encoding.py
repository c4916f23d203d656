"""Values on their way into PostgreSQL: as array literals of small writes, and in the binary format of COPY.

Array literals hold bytes and text in hexadecimal and dates in whole microseconds, which needs no quoting and is read
fast. The binary format is that of the COPY page of PostgreSQL's documentation; a timestamptz in it is the count of
microseconds since 2000 (src/include/datatype/timestamp.h).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import chain, repeat
from typing import Any, Final

from provgate_storage.postgresql.tables import ColumnType

_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)

_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = struct.pack("!h", -1)
_NULL: Final = struct.pack("!i", -1)
_length = struct.Struct("!i").pack
_date_field = struct.Struct("!iq").pack


def microseconds(date: datetime) -> int:
    """Returns the microseconds from 2000-01-01T00:00:00Z to a date."""
    since = date - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def array_literal(values: Iterable[bytes | None]) -> str:
    """Returns byte strings as the literal of a text[] of hexadecimal text."""
    return _array(["NULL" if value is None else value.hex() or '""' for value in values])


def column_literal(column_type: ColumnType, values: Sequence[Any]) -> str:
    """Returns the values of a column as the literal of an array of `literal_type`, for `literal_value` to read."""
    match column_type:
        case ColumnType.DATE:
            return _array(["NULL" if date is None else str(microseconds(date)) for date in values])
        case ColumnType.TEXT:
            return array_literal([text.encode() for text in values])
        case ColumnType.BYTES:
            return array_literal(values)


def literal_type(column_type: ColumnType) -> str:
    """Returns the SQL type of the array that `column_literal` makes."""
    return "bigint[]" if column_type is ColumnType.DATE else "text[]"


def literal_value(column_type: ColumnType, element: str) -> str:
    """Returns the SQL expression of the value that an element of the array stands for."""
    match column_type:
        case ColumnType.DATE:
            # An interval is multiplied in floating point: whole seconds and the rest of them apart are exact.
            return (
                f"timestamptz '2000-01-01 00:00:00+00' + make_interval(secs => {element} / 1000000) "
                f"+ mod({element}, 1000000) * interval '1 microsecond'"
            )
        case ColumnType.TEXT:
            return f"convert_from(decode({element}, 'hex'), 'UTF8')"
        case ColumnType.BYTES:
            return f"decode({element}, 'hex')"


def copy_document(column_types: Sequence[ColumnType], columns: Sequence[Sequence[Any]]) -> bytes:
    """Returns columns of equal length as a document of COPY ... (FORMAT binary)."""
    field_count = struct.pack("!h", len(columns))
    fields = [map(_FIELDS[column_type], column) for column_type, column in zip(column_types, columns, strict=True)]
    rows = chain.from_iterable(zip(repeat(field_count), *fields))
    return b"".join(chain((_SIGNATURE,), rows, (_TRAILER,)))


def _array(elements: Iterable[str]) -> str:
    return "{" + ",".join(elements) + "}"


def _bytes_copied(value: bytes | None) -> bytes:
    return _NULL if value is None else _length(len(value)) + value


def _date_copied(date: datetime | None) -> bytes:
    return _NULL if date is None else _date_field(8, microseconds(date))


def _text_copied(text: str) -> bytes:
    return _bytes_copied(text.encode())


_FIELDS: Final[dict[ColumnType, Callable[[Any], bytes]]] = {
    ColumnType.BYTES: _bytes_copied,
    ColumnType.DATE: _date_copied,
    ColumnType.TEXT: _text_copied,
}
