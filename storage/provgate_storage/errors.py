"""The errors of a storage.

The class says whether a call may be repeated, never the text: a subclass of `RetryableStorageError` may be repeated
unchanged, all others may not.
"""

from __future__ import annotations

from enum import StrEnum


class StorageError(Exception):
    """The base of all errors of a storage."""


class RetryableStorageError(StorageError):
    """The call did not happen as a whole, and may be repeated."""


class StorageConflictError(RetryableStorageError):
    """Two writers met (a deadlock, a serialization failure, a lock not granted): repeat at once."""


class StorageLockedError(StorageConflictError):
    """A lock was not granted in time: repeat once at once, then after a while, since each call may wait as long."""


class StorageUnavailableError(RetryableStorageError):
    """The database cannot be reached or is shutting down: repeat after a while, over a new connection."""


class StorageBusyError(RetryableStorageError):
    """Every connection for calls of this kind is in use: repeat after a while."""


class StorageFullError(RetryableStorageError):
    """The database has no space or cannot write: repeat after an operator has helped."""


class StorageTimeoutError(RetryableStorageError):
    """The database ended a statement at its time limit. It takes as long again: repeat a write in smaller parts."""


class StorageForbiddenError(RetryableStorageError):
    """The database's user lacks a right: repeat after it was granted."""


class DataRefusedError(StorageError):
    """The database refuses a value as data. Repeating the call does not help."""


class SchemaMismatchError(StorageError):
    """The database differs from what this program expects: no schema, another version, or other range counts."""


class NotSetUpError(SchemaMismatchError):
    """The database has no schema yet, or not all of it: `provgate-workers setup` makes what is missing."""


class InvalidValue(StrEnum):
    """What is wrong with a value; the names are those of the service's error reasons."""

    ID = "INVALID_ID"
    DATE = "INVALID_DATE"
    PATH = "INVALID_PATH"
    URL = "INVALID_URL"
    ENUM = "INVALID_ENUM"
    LIMIT = "INVALID_LIMIT"


class InvalidValueError(StorageError, ValueError):
    """A storage cannot keep a value.

    Attributes:
        kind: what is wrong.
    """

    def __init__(self, kind: InvalidValue, message: str) -> None:
        super().__init__(message)
        self.kind = kind
