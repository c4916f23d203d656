"""What a storage raises.

Whether a call may be repeated is told by the class, never by a text: a subclass of `RetryableStorageError` may be
repeated as it is, every other may not.
"""

from __future__ import annotations

from enum import StrEnum


class StorageError(Exception):
    """The base of everything that a storage raises."""


class RetryableStorageError(StorageError):
    """The call did not happen as a whole, and may be repeated."""


class StorageConflictError(RetryableStorageError):
    """Two writers met (a deadlock, a serialization failure, a lock not granted): repeat at once."""


class StorageLockedError(StorageConflictError):
    """A lock was not granted in time. Repeating at once may wait as long again: once, and then after a while."""


class StorageUnavailableError(RetryableStorageError):
    """The database cannot be reached or is shutting down: repeat after a while, over a new connection."""


class StorageBusyError(RetryableStorageError):
    """Every connection for calls of this kind is in use: repeat after a while."""


class StorageFullError(RetryableStorageError):
    """The database has no space or cannot write: repeat once somebody has helped it."""


class StorageTimeoutError(RetryableStorageError):
    """The database ended a statement at its time limit. It takes as long again: repeat a write in smaller parts."""


class StorageForbiddenError(RetryableStorageError):
    """The database's user lacks a right: repeat once somebody has granted it."""


class DataRefusedError(StorageError):
    """The database refuses a value as data. Repeating the call is of no use."""


class SchemaMismatchError(StorageError):
    """The database is not what this program expects: no schema, another version, or other range counts."""


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
    """A value given to a storage is not one that it can keep.

    Attributes:
        kind: what is wrong.
    """

    def __init__(self, kind: InvalidValue, message: str) -> None:
        super().__init__(message)
        self.kind = kind
