"""Which error of ours an error of MongoDB is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from bson.errors import BSONError, InvalidDocument
from pymongo.errors import (
    BulkWriteError,
    DocumentTooLarge,
    OperationFailure,
    PyMongoError,
    WaitQueueTimeoutError,
)

from provgate_storage.errors import (
    DataRefusedError,
    SchemaMismatchError,
    StorageBusyError,
    StorageConflictError,
    StorageError,
    StorageForbiddenError,
    StorageFullError,
    StorageLockedError,
    StorageTimeoutError,
    StorageUnavailableError,
)

DUPLICATE_KEY: Final = 11000

# https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
_CLASSES: Final[dict[int, type[StorageError]]] = {
    121: DataRefusedError,  # DocumentValidationFailure
    22: DataRefusedError,  # InvalidBSON
    10334: DataRefusedError,  # BSONObjectTooLarge
    17280: DataRefusedError,  # KeyTooLong
    13: StorageForbiddenError,  # Unauthorized: no right to it
    26: SchemaMismatchError,  # NamespaceNotFound
    48: SchemaMismatchError,  # NamespaceExists
    73: SchemaMismatchError,  # InvalidNamespace
    85: SchemaMismatchError,  # IndexOptionsConflict
    86: SchemaMismatchError,  # IndexKeySpecsConflict
    166: SchemaMismatchError,  # CommandNotSupportedOnView: somebody else's view
    24: StorageLockedError,  # LockTimeout
    46: StorageLockedError,  # LockBusy
    50: StorageTimeoutError,  # MaxTimeMSExpired
    112: StorageConflictError,  # WriteConflict
    251: StorageConflictError,  # NoSuchTransaction
    DUPLICATE_KEY: StorageConflictError,  # two upserts of one key met
    14031: StorageFullError,  # OutOfDiskSpace
}

# Of the errors of several rows, what decides: first what no repetition mends, then what takes the longest.
_GRAVEST_FIRST: Final = (
    DataRefusedError,
    SchemaMismatchError,
    StorageForbiddenError,
    StorageFullError,
    StorageUnavailableError,
    StorageTimeoutError,
    StorageLockedError,
    StorageConflictError,
)


def error_class(code: int | None) -> type[StorageError]:
    """Returns the class of the error that a code of the server is; None is an error that has none.

    What the table does not name is taken for a state of the server that passes: no primary, shutdown, a failed
    authentication (18), a snapshot that is too old (239), a write concern that was not met (64), and what nobody
    foresaw. A row is never given up for a reason that is not known.
    """
    return StorageUnavailableError if code is None else _CLASSES.get(code, StorageUnavailableError)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raises what pymongo raises within the block as a `StorageError`."""
    try:
        yield
    except (PyMongoError, BSONError) as error:
        raise _translated(error) from error


def _translated(error: PyMongoError | BSONError) -> StorageError:
    if isinstance(error, BulkWriteError):
        return _of_rows(error.details or {})
    # A document that does not fit is found by the driver before it is sent.
    if isinstance(error, InvalidDocument | DocumentTooLarge | BSONError):
        return DataRefusedError(f"MongoDB: {error}")
    if isinstance(error, WaitQueueTimeoutError):
        return StorageBusyError(f"MongoDB: {error}")
    code = error.code if isinstance(error, OperationFailure) else None
    text = _first_sentence(error)
    return error_class(code)(f"MongoDB: {text}")


def _of_rows(details: Mapping[str, Any]) -> StorageError:
    found = [*details.get("writeErrors", []), *details.get("writeConcernErrors", [])]
    by_class = {error_class(each.get("code")): each for each in reversed(found)}
    for gravest in _GRAVEST_FIRST:
        if gravest in by_class:
            return gravest(f"MongoDB: {by_class[gravest].get('errmsg')}")
    return StorageUnavailableError("MongoDB: a write failed for no reason given")


def _first_sentence(error: PyMongoError) -> str:
    # Behind it pymongo prints the whole answer of the server, or its picture of all servers.
    text = str(error).partition(", full error:")[0].partition(", Timeout: ")[0].strip()
    return text or type(error).__name__
