"""Translates the errors of PostgreSQL into `StorageError`s."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg2

from provgate_storage.errors import (
    DataRefusedError,
    SchemaMismatchError,
    StorageConflictError,
    StorageError,
    StorageForbiddenError,
    StorageFullError,
    StorageLockedError,
    StorageTimeoutError,
    StorageUnavailableError,
)

# By SQLSTATE or its first two characters, the longer match first (PostgreSQL documentation, appendix A).
_CLASSES: Final[dict[str, type[StorageError]]] = {
    "22": DataRefusedError,  # data exception
    "23": DataRefusedError,  # integrity constraint violation
    "54": DataRefusedError,  # program limit exceeded: a value too large for a row or an index
    "3D": SchemaMismatchError,  # no such database
    "3F": SchemaMismatchError,  # no such schema
    "42": SchemaMismatchError,  # no such table or column
    "42501": StorageForbiddenError,  # insufficient privilege
    "40": StorageConflictError,  # serialization failure, deadlock
    "55P03": StorageLockedError,  # lock not available
    "57014": StorageTimeoutError,  # query canceled: by its statement timeout
    "53100": StorageFullError,  # disk full
    "58030": StorageFullError,  # input/output error
}


def error_class(sqlstate: str | None) -> type[StorageError]:
    """Returns the error class for a SQLSTATE; None stands for an error without one, such as a lost connection.

    Everything that the table does not name counts as a passing state of the server: shutdown (57P01 to 57P03), too many
    connections (53300), a standby that refuses writes (25006), a lost connection (08), and the unforeseen. A row is
    never given up for an unknown reason.
    """
    if sqlstate is None:
        return StorageUnavailableError
    return _CLASSES.get(sqlstate) or _CLASSES.get(sqlstate[:2]) or StorageUnavailableError


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raises what psycopg2 raises within the block as a `StorageError`."""
    try:
        yield
    except psycopg2.Error as error:
        kind = error_class(error.pgcode)
        # This text is logged. For refused data, all but the first line quotes the row.
        first_line = error.diag.message_primary if kind is DataRefusedError else None
        text = first_line or str(error).strip() or type(error).__name__
        raise kind(f"PostgreSQL: {text}") from error
