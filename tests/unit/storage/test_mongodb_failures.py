"""Errors of MongoDB become the classes that say what to do."""

from __future__ import annotations

from typing import Any

import pytest
from bson.errors import InvalidDocument
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    DocumentTooLarge,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
)

from provgate_storage.errors import (
    DataRefusedError,
    RetryableStorageError,
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
from provgate_storage.mongodb.failures import error_class, translated_errors

EXPECTED: dict[int | None, type[StorageError]] = {
    None: StorageUnavailableError,
    13: StorageForbiddenError,
    18: StorageUnavailableError,
    24: StorageLockedError,
    50: StorageTimeoutError,
    64: StorageUnavailableError,
    85: SchemaMismatchError,
    91: StorageUnavailableError,
    112: StorageConflictError,
    121: DataRefusedError,
    189: StorageUnavailableError,
    239: StorageUnavailableError,
    11000: StorageConflictError,
    11600: StorageUnavailableError,
    14031: StorageFullError,
    987_654: StorageUnavailableError,
}


@pytest.mark.parametrize(("code", "expected"), EXPECTED.items())
def test_class_of_a_code(code: int | None, expected: type[StorageError]) -> None:
    assert error_class(code) is expected


def test_only_data_and_schema_are_not_retryable() -> None:
    final = {found for found in EXPECTED.values() if not issubclass(found, RetryableStorageError)}
    assert final == {DataRefusedError, SchemaMismatchError}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (AutoReconnect("lost"), StorageUnavailableError),
        (ServerSelectionTimeoutError("none"), StorageUnavailableError),
        (WaitQueueTimeoutError("full"), StorageBusyError),
        (DocumentTooLarge("large"), DataRefusedError),
        (InvalidDocument("odd"), DataRefusedError),
        (OperationFailure("a conflict", 112), StorageConflictError),
    ],
)
def test_class_of_an_error_of_the_driver(error: Exception, expected: type[StorageError]) -> None:
    with pytest.raises(expected, match="MongoDB: ") as caught, translated_errors():
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("codes", "concern_codes", "expected"),
    [
        ([11000, 121], [], DataRefusedError),
        ([112, 91], [], StorageUnavailableError),
        ([112, 14031], [], StorageFullError),
        ([], [64], StorageUnavailableError),
        ([11000], [64], StorageUnavailableError),
        ([], [], StorageUnavailableError),
    ],
)
def test_the_gravest_of_several_rows_decides(
    codes: list[int], concern_codes: list[int], expected: type[StorageError]
) -> None:
    details: dict[str, Any] = {
        "writeErrors": [{"code": code, "errmsg": f"it is {code}"} for code in codes],
        "writeConcernErrors": [{"code": code, "errmsg": f"it is {code}"} for code in concern_codes],
    }
    with pytest.raises(expected), translated_errors():
        raise BulkWriteError(details)


def test_the_text_is_without_the_answer_of_the_server() -> None:
    with pytest.raises(StorageError) as caught, translated_errors():
        raise OperationFailure("short", 112, {"errmsg": "short", "long": "x" * 100})
    assert str(caught.value) == "MongoDB: short"
    with pytest.raises(StorageUnavailableError, match="MongoDB: PyMongoError"), translated_errors():
        raise PyMongoError


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), translated_errors():
        raise KeyError
