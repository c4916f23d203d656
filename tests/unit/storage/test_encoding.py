"""Values on their way into PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from provgate_storage.postgresql.encoding import array_literal, column_literal, copy_document, microseconds
from provgate_storage.postgresql.tables import ColumnType

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def test_microseconds_count_from_2000() -> None:
    assert microseconds(EPOCH) == 0
    assert microseconds(EPOCH - timedelta(microseconds=1)) == -1
    assert microseconds(datetime.min.replace(tzinfo=UTC)) == -63_082_281_600_000_000
    assert microseconds(datetime.max.replace(tzinfo=UTC)) == 252_455_615_999_999_999


@given(st.datetimes(timezones=st.just(UTC)))
def test_microseconds_lose_nothing(date: datetime) -> None:
    assert EPOCH + timedelta(microseconds=microseconds(date)) == date


def test_array_literals_need_no_quoting() -> None:
    assert array_literal([]) == "{}"
    assert array_literal([b"", b"{,}", None]) == '{"",7b2c7d,NULL}'
    assert column_literal(ColumnType.TEXT, ["é"]) == "{c3a9}"
    assert column_literal(ColumnType.DATE, [EPOCH, None]) == "{0,NULL}"


def test_a_document_of_copy() -> None:
    document = copy_document(
        [ColumnType.BYTES, ColumnType.DATE, ColumnType.TEXT],
        [[b"ab", None], [EPOCH + timedelta(microseconds=258), None], ["é", ""]],
    )
    assert document == (
        b"PGCOPY\n\xff\r\n\0" + bytes(8)
        + b"\0\3" + b"\0\0\0\2ab" + b"\0\0\0\10\0\0\0\0\0\0\1\2" + b"\0\0\0\2\xc3\xa9"
        + b"\0\3" + b"\xff\xff\xff\xff" + b"\xff\xff\xff\xff" + b"\0\0\0\0"
        + b"\xff\xff"
    )  # fmt: skip
