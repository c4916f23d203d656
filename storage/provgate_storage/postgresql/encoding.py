"""Columns of rows on their way into PostgreSQL: as array literals of small writes, and in the binary format of COPY.

Array literals hold bytes and text in hexadecimal and dates in whole microseconds, which needs no quoting and is read
fast. The binary format is that of the COPY page of PostgreSQL's documentation; a timestamptz in it is the count of
microseconds since 2000 (src/include/datatype/timestamp.h).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import chain, repeat
from operator import sub
from typing import Any, Final

from provgate_storage.postgresql.tables import ColumnType
from provgate_storage.values import to_microseconds

_EPOCH_MICROSECONDS: Final = to_microseconds(datetime(2000, 1, 1, tzinfo=UTC))

_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = struct.pack("!h", -1)
_NULL: Final = struct.pack("!i", -1)
_DATED_ROW: Final = struct.Struct("!hi20siq")
_length = struct.Struct("!i").pack
_date = struct.Struct("!q").pack


def array_literal(values: Iterable[bytes | None]) -> str:
    """Returns byte strings as the literal of a text[] of hexadecimal text."""
    return _array(["NULL" if value is None else value.hex() or '""' for value in values])


def column_literal(column_type: ColumnType, values: Sequence[Any]) -> str:
    """Returns the values of a column as the literal of an array of `literal_type`, for `literal_value` to read."""
    match column_type:
        case ColumnType.DATE:
            return _array(["NULL" if microseconds is None else str(microseconds) for microseconds in values])
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
                f"timestamptz '1970-01-01 00:00:00+00' + make_interval(secs => {element} / 1000000) "
                f"+ mod({element}, 1000000) * interval '1 microsecond'"
            )
        case ColumnType.TEXT:
            return f"convert_from(decode({element}, 'hex'), 'UTF8')"
        case ColumnType.BYTES:
            return f"decode({element}, 'hex')"


def copy_document(column_types: Sequence[ColumnType], columns: Sequence[Sequence[Any]]) -> bytes:
    """Returns columns of equal length as a document of COPY ... (FORMAT binary).

    Neighbours that have one length in all rows are packed together, with one call a row: a call for each field would
    double what a worker spends on a batch.
    """
    pieces: list[Iterable[bytes]] = []
    layout = "!h"
    values: list[Iterable[Any]] = [repeat(len(columns))]
    for column_type, column in zip(column_types, columns, strict=True):
        data = column if column_type is not ColumnType.TEXT else [text.encode() for text in column]
        if None in data:
            pieces += [_packed(layout, values), _fields(column_type, data)]
            layout, values = "!", []
        elif column_type is ColumnType.DATE:
            layout += "iq"
            values += [repeat(8), map(sub, data, repeat(_EPOCH_MICROSECONDS))]
        elif len(lengths := set(map(len, data))) == 1:
            (length,) = lengths
            layout += f"i{length}s"
            values += [repeat(length), data]
        else:
            pieces += [_packed(layout + "i", [*values, map(len, data)]), data]
            layout, values = "!", []
    if values:
        pieces.append(_packed(layout, values))
    return b"".join(chain((_SIGNATURE,), chain.from_iterable(zip(*pieces, strict=False)), (_TRAILER,)))


def dated_rows(document: bytes) -> list[tuple[bytes, int]]:
    """Returns the rows of a document of COPY ... (FORMAT binary): ids, and dates in microseconds since 1970."""
    fields = _DATED_ROW.iter_unpack(document[len(_SIGNATURE) : -len(_TRAILER)])
    return [(entry_id, date + _EPOCH_MICROSECONDS) for _, _, entry_id, _, date in fields]


def _packed(layout: str, values: Sequence[Iterable[Any]]) -> Iterable[bytes]:
    """Returns one piece a row; an empty one where nothing stands between two columns."""
    return map(struct.Struct(layout).pack, *values) if values else repeat(b"")


def _fields(column_type: ColumnType, column: Sequence[Any]) -> list[bytes]:
    """Returns the field of each value, with its length or as NULL."""
    if column_type is ColumnType.DATE:
        column = [None if value is None else _date(value - _EPOCH_MICROSECONDS) for value in column]
    return [_NULL if value is None else _length(len(value)) + value for value in column]


def _array(elements: Iterable[str]) -> str:
    return "{" + ",".join(elements) + "}"
