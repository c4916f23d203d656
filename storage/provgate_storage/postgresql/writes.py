"""Rows into tables, merged with what is stored, by the faster of two ways.

Measured (docs/decisions.md): up to some 1,500 rows one INSERT from array literals costs less, above a binary COPY into
a temporary table and an INSERT from there.
"""

# ruff: noqa: S608 - statements are made of names of this package; values are parameters

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

from psycopg2.extensions import cursor

from provgate_storage.postgresql.encoding import column_literal, copy_document, literal_type, literal_value
from provgate_storage.postgresql.tables import Table
from provgate_storage.rows import Row

INSERT_MAX_ROW_COUNT: Final = 1_500
"""From more rows than these on, COPY costs less than an INSERT."""

PIECE_ROW_COUNT: Final = 20_000
"""Rows of one statement: what bounds the memory of a call with a million."""


def write(open_cursor: cursor, table: Table, rows: Sequence[Row]) -> None:
    """Merges rows into a table, in the transaction of a cursor.

    Args:
        open_cursor: in a transaction.
        table: where to.
        rows: as `provgate_storage.rows.merged` returns them: two writers that lock rows in the same order do not
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
