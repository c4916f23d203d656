"""Values on their way into PostgreSQL."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from provgate_storage.postgresql.schema import ColumnType
from provgate_storage.postgresql.writes import array_literal, column_literal, copy_document
from provgate_storage.rows.values import MICROSECONDS_MAX, MICROSECONDS_MIN


def test_array_literals_need_no_quoting() -> None:
    assert array_literal([]) == "{}"
    assert array_literal([b"", b"{,}", None]) == '{"",7b2c7d,NULL}'
    assert column_literal(ColumnType.TEXT, ["é"]) == "{c3a9}"
    assert column_literal(ColumnType.DATE, [0, None, -1]) == "{0,NULL,-1}"


YEAR_2000 = 946_684_800_000_000


def test_a_document_of_copy() -> None:
    document = copy_document(
        [ColumnType.BYTES, ColumnType.DATE, ColumnType.TEXT],
        [[b"ab", None], [YEAR_2000 + 258, None], ["é", ""]],
    )
    assert document == (
        b"PGCOPY\n\xff\r\n\0" + bytes(8)
        + b"\0\3" + b"\0\0\0\2ab" + b"\0\0\0\10\0\0\0\0\0\0\1\2" + b"\0\0\0\2\xc3\xa9"
        + b"\0\3" + b"\xff\xff\xff\xff" + b"\xff\xff\xff\xff" + b"\0\0\0\0"
        + b"\xff\xff"
    )  # fmt: skip


def plain_field(value: Any) -> bytes:
    """Returns a field as the documentation of COPY describes it."""
    if value is None:
        return struct.pack("!i", -1)
    data = struct.pack("!q", value - YEAR_2000) if isinstance(value, int) else value
    data = data.encode() if isinstance(data, str) else data
    return struct.pack("!i", len(data)) + data


COLUMNS = {
    ColumnType.BYTES: st.binary(max_size=3) | st.none(),
    ColumnType.DATE: st.integers(MICROSECONDS_MIN, MICROSECONDS_MAX) | st.none(),
}


@given(st.data())
def test_a_document_is_its_fields_whatever_their_lengths(data: st.DataObject) -> None:
    types = data.draw(st.lists(st.sampled_from([ColumnType.BYTES, ColumnType.DATE]), min_size=1, max_size=4))
    rows = data.draw(st.lists(st.tuples(*(COLUMNS[column_type] for column_type in types)), max_size=5))
    document = copy_document(types, [[row[index] for row in rows] for index in range(len(types))])
    fields = b"".join(struct.pack("!h", len(types)) + b"".join(map(plain_field, row)) for row in rows)
    assert document == b"PGCOPY\n\xff\r\n\0" + bytes(8) + fields + b"\xff\xff"
