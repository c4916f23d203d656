"""Rows into tables, merged with what is stored, by the faster of two ways.

Measured (docs/decisions.md): up to some 1,500 rows one INSERT from array literals costs less, above a binary COPY into
a temporary table and an INSERT from there.
"""

# ruff: noqa: S608 - statements are made of names of this package; values are parameters

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, islice, repeat
from operator import sub
from typing import Any, Final

from psycopg2.extensions import cursor

from provgate_storage.postgresql.schema import ColumnType, Table
from provgate_storage.rows.rows import Row
from provgate_storage.rows.values import to_microseconds

# Columns of rows on their way into PostgreSQL: as array literals of small writes, and in the binary format of COPY.
#
# Array literals hold bytes and text in hexadecimal and dates in whole microseconds, which needs no quoting and is read
# fast. The binary format is that of the COPY page of PostgreSQL's documentation; a timestamptz in it is the count of
# microseconds since 2000 (src/include/datatype/timestamp.h).

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


INSERT_MAX_ROW_COUNT: Final = 1_500
"""From more rows than these on, COPY costs less than an INSERT."""

PIECE_ROW_COUNT: Final = 20_000
"""Rows of one statement: what bounds the memory of a call with a million."""


def write(open_cursor: cursor, table: Table, rows: Sequence[Row]) -> None:
    """Merges rows into a table, in the transaction of a cursor.

    Args:
        open_cursor: in a transaction.
        table: where to.
        rows: as `provgate_storage.rows.rows.merged` returns them: two writers that lock rows in the same order do not
            deadlock.
    """
    for number, piece in enumerate(_pieces(rows)):
        if len(piece) <= INSERT_MAX_ROW_COUNT:
            _insert(open_cursor, table, piece)
        else:
            _copy(open_cursor, table, piece, first=number == 0)


def _insert(open_cursor: cursor, table: Table, rows: Sequence[Row]) -> None:
    values = ", ".join(literal_value(column_type, f"given.{name}") for name, column_type in table.columns)
    arrays = ", ".join(f"%s::{literal_type(column_type)}" for _, column_type in table.columns)
    columns = zip(table.columns, _columns(table, rows), strict=True)
    literals = [column_literal(column_type, column) for (_, column_type), column in columns]
    source = f"SELECT {values} FROM unnest({arrays}) AS given ({_names(table)})"
    open_cursor.execute(_merge_statement(table, source), literals)


def _copy(open_cursor: cursor, table: Table, rows: Sequence[Row], first: bool) -> None:
    staging = f"new_{table.name}"
    columns = ", ".join(f"{name} {column_type.value}" for name, column_type in table.columns)
    document = copy_document([column_type for _, column_type in table.columns], _columns(table, rows))
    if first:
        # Kept for the connection's next call: made anew for each, it costs more and bloats the catalog.
        open_cursor.execute(f"CREATE TEMPORARY TABLE IF NOT EXISTS {staging} ({columns}) ON COMMIT DELETE ROWS")
    else:
        open_cursor.execute(f"TRUNCATE pg_temp.{staging}")
    open_cursor.copy_expert(f"COPY pg_temp.{staging} FROM STDIN (FORMAT binary)", io.BytesIO(document))
    # A temporary table is scanned from its start, so the rows keep their order.
    source = f"SELECT {_names(table)} FROM pg_temp.{staging}"
    open_cursor.execute(_merge_statement(table, source))


def _merge_statement(table: Table, source: str) -> str:
    return f"INSERT INTO {table.name} AS stored ({_names(table)}) {source} ON CONFLICT {table.on_conflict}"


def _columns(table: Table, rows: Sequence[Row]) -> list[list[Any]]:
    # Not zip(*rows), which makes an iterator of each row.
    return [[row[index] for row in rows] for index in range(len(table.columns))]


def _names(table: Table) -> str:
    return ", ".join(name for name, _ in table.columns)


def _pieces(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    remaining = iter(rows)
    while piece := list(islice(remaining, PIECE_ROW_COUNT)):
        yield piece
