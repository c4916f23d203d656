"""Writes rows into tables and merges them with the stored ones, by the faster of two ways.

Up to about 1,500 rows, one INSERT from array literals costs less; above, a binary COPY into a temporary table and an
INSERT from there (measured in docs/decisions.md).
"""

# ruff: noqa: S608 - statements are made of names of this package; values are parameters

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import chain, repeat
from operator import sub
from typing import Any, Final

from psycopg2.extensions import cursor

from provgate_storage.postgresql.schema import ColumnType, Table
from provgate_storage.rows.rows import Row
from provgate_storage.rows.values import to_microseconds

INSERT_MAX_ROW_COUNT: Final = 1_500
"""For more rows, COPY costs less than an INSERT."""

PIECE_ROW_COUNT: Final = 20_000
"""Rows of one statement: this limits the memory of a call with a million rows."""


def write(open_cursor: cursor, table: Table, rows: Sequence[Row]) -> None:
    """Merges rows into a table, in the transaction of a cursor.

    Args:
        open_cursor: in a transaction.
        table: where to write.
        rows: as `provgate_storage.rows.rows.merged` returns them: writers that lock rows in one order do not deadlock.
    """
    for start in range(0, len(rows), PIECE_ROW_COUNT):
        piece = rows[start : start + PIECE_ROW_COUNT]
        # Not zip(*piece), which makes an iterator of each row.
        columns = [[row[index] for row in piece] for index in range(len(table.columns))]
        if len(piece) <= INSERT_MAX_ROW_COUNT:
            _insert(open_cursor, table, columns)
        else:
            _copy(open_cursor, table, columns, first=start == 0)


def _insert(open_cursor: cursor, table: Table, columns: Sequence[Sequence[Any]]) -> None:
    values = ", ".join(literal_value(column_type, f"given.{name}") for name, column_type in table.columns)
    arrays = ", ".join(
        "%s::bigint[]" if column_type is ColumnType.DATE else "%s::text[]" for _, column_type in table.columns
    )
    literals = [
        column_literal(column_type, column) for (_, column_type), column in zip(table.columns, columns, strict=True)
    ]
    source = f"SELECT {values} FROM unnest({arrays}) AS given ({_names(table)})"
    open_cursor.execute(_merge_statement(table, source), literals)


def _copy(open_cursor: cursor, table: Table, columns: Sequence[Sequence[Any]], first: bool) -> None:
    staging = f"new_{table.name}"
    definition = ", ".join(f"{name} {column_type.value}" for name, column_type in table.columns)
    document = copy_document([column_type for _, column_type in table.columns], columns)
    if first:
        # Kept for the connection's next call: a new one for each call costs more and bloats the catalog.
        open_cursor.execute(f"CREATE TEMPORARY TABLE IF NOT EXISTS {staging} ({definition}) ON COMMIT DELETE ROWS")
    else:
        open_cursor.execute(f"TRUNCATE pg_temp.{staging}")
    open_cursor.copy_expert(f"COPY pg_temp.{staging} FROM STDIN (FORMAT binary)", io.BytesIO(document))
    # A temporary table is scanned from its start, so the rows keep their order.
    open_cursor.execute(_merge_statement(table, f"SELECT {_names(table)} FROM pg_temp.{staging}"))


def _merge_statement(table: Table, source: str) -> str:
    return f"INSERT INTO {table.name} AS stored ({_names(table)}) {source} ON CONFLICT {table.on_conflict}"


def _names(table: Table) -> str:
    return ", ".join(name for name, _ in table.columns)


def array_literal(values: Iterable[bytes | None]) -> str:
    """Returns byte strings as the literal of a text[] of hexadecimal text, which needs no quoting."""
    return _array(["NULL" if value is None else value.hex() or '""' for value in values])


def column_literal(column_type: ColumnType, values: Sequence[Any]) -> str:
    """Returns a column as the literal of an array: a bigint[] of microseconds for dates, else as `array_literal`."""
    match column_type:
        case ColumnType.DATE:
            return _array(["NULL" if microseconds is None else str(microseconds) for microseconds in values])
        case ColumnType.TEXT:
            return array_literal([text.encode() for text in values])
        case ColumnType.BYTES:
            return array_literal(values)


def literal_value(column_type: ColumnType, element: str) -> str:
    """Returns the SQL expression that turns an element of `column_literal` into a value."""
    match column_type:
        case ColumnType.DATE:
            # An interval is multiplied in floating point: whole seconds and the rest are exact only apart.
            return (
                f"timestamptz '1970-01-01 00:00:00+00' + make_interval(secs => {element} / 1000000) "
                f"+ mod({element}, 1000000) * interval '1 microsecond'"
            )
        case ColumnType.TEXT:
            return f"convert_from(decode({element}, 'hex'), 'UTF8')"
        case ColumnType.BYTES:
            return f"decode({element}, 'hex')"


def _array(elements: Iterable[str]) -> str:
    return "{" + ",".join(elements) + "}"


# The binary format of the COPY page of PostgreSQL's documentation. A timestamptz in it is the number of microseconds
# since 2000 (src/include/datatype/timestamp.h).
_EPOCH_MICROSECONDS: Final = to_microseconds(datetime(2000, 1, 1, tzinfo=UTC))
_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = struct.pack("!h", -1)
_NULL: Final = struct.pack("!i", -1)
_DATED_ROW: Final = struct.Struct("!hi20siq")
_length = struct.Struct("!i").pack
_date = struct.Struct("!q").pack


def copy_document(column_types: Sequence[ColumnType], columns: Sequence[Sequence[Any]]) -> bytes:
    """Returns columns of equal length as a document of COPY ... (FORMAT binary).

    Neighbouring columns with one length in all rows are packed together, with one call a row: a call for each field
    would double what a worker spends on a batch.
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


def rows_of_dated_document(document: bytes) -> list[tuple[bytes, int]]:
    """Returns the rows, ids and dates in microseconds since 1970, of a document of COPY ... (FORMAT binary)."""
    fields = _DATED_ROW.iter_unpack(document[len(_SIGNATURE) : -len(_TRAILER)])
    return [(entry_id, date + _EPOCH_MICROSECONDS) for _, _, entry_id, _, date in fields]


def _packed(layout: str, values: Sequence[Iterable[Any]]) -> Iterable[bytes]:
    """Returns one piece a row; an empty one if nothing is between two columns."""
    return map(struct.Struct(layout).pack, *values) if values else repeat(b"")


def _fields(column_type: ColumnType, column: Sequence[Any]) -> list[bytes]:
    """Returns the field of each value, with its length or as NULL."""
    if column_type is ColumnType.DATE:
        column = [None if value is None else _date(value - _EPOCH_MICROSECONDS) for value in column]
    return [_NULL if value is None else _length(len(value)) + value for value in column]
