"""Translates the errors of MongoDB and its driver into `StorageError`s."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

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
    166: SchemaMismatchError,  # CommandNotSupportedOnView: another program's view
    24: StorageLockedError,  # LockTimeout
    46: StorageLockedError,  # LockBusy
    50: StorageTimeoutError,  # MaxTimeMSExpired
    112: StorageConflictError,  # WriteConflict
    251: StorageConflictError,  # NoSuchTransaction
    DUPLICATE_KEY: StorageConflictError,  # two upserts of one key met
    14031: StorageFullError,  # OutOfDiskSpace
}

# Which error of several rows decides: first those that no repetition mends, then those that take the longest.
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
    """Returns the error class for a code of the server; None stands for an error without one.

    Everything that the table does not name counts as a passing state of the server: no primary, shutdown, a failed
    authentication (18), a snapshot that is too old (239), a write concern that was not met (64), and the unforeseen. A
    row is never given up for an unknown reason.
    """
    return StorageUnavailableError if code is None else _CLASSES.get(code, StorageUnavailableError)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raises what pymongo raises within the block as a `StorageError`."""
    try:
        yield
    except BulkWriteError as error:
        raise _gravest_of_rows(error) from error
    except (InvalidDocument, DocumentTooLarge, BSONError) as error:
        # The driver finds that a document does not fit, before it sends it.
        raise DataRefusedError(f"MongoDB: {error}") from error
    except WaitQueueTimeoutError as error:
        raise StorageBusyError(f"MongoDB: {error}") from error
    except PyMongoError as error:
        code = error.code if isinstance(error, OperationFailure) else None
        # pymongo appends the whole answer of the server, or a description of all servers.
        text = str(error).partition(", full error:")[0].partition(", Timeout: ")[0].strip()
        raise error_class(code)(f"MongoDB: {text or type(error).__name__}") from error


def _gravest_of_rows(error: BulkWriteError) -> StorageError:
    details = error.details or {}
    found = [*details.get("writeErrors", []), *details.get("writeConcernErrors", [])]
    by_class = {error_class(each.get("code")): each for each in reversed(found)}
    for gravest in _GRAVEST_FIRST:
        if gravest in by_class:
            return gravest(f"MongoDB: {by_class[gravest].get('errmsg')}")
    return StorageUnavailableError("MongoDB: a write failed without a reason")
