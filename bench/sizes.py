"""What a row takes on the database's disk."""

from __future__ import annotations

from typing import Final

from bench.session import Session
from bench.subjects import DIRECT

_ROWS: Final = 1_000_000


def measure_sizes(session: Session) -> None:
    """Looks at tables of 1,000,000 rows, with their indexes."""
    database = session.subjects.get(DIRECT).database
    database.empty()
    database.fill(_ROWS)
    session.results.row_bytes |= {table: size / _ROWS for table, size in database.sizes_bytes().items()}
    database.empty()
