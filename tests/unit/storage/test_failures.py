"""Errors of the databases become the classes that say what to do."""

from __future__ import annotations

from typing import Any

import psycopg2
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
from provgate_storage.mongodb import failures as mongodb
from provgate_storage.postgresql import failures as postgresql

SQLSTATES = {
    DataRefusedError: "22001 22021 22P05 23505 23514 54000",
    SchemaMismatchError: "3D000 42703 42P01",
    StorageForbiddenError: "42501",
    StorageConflictError: "40001 40P01",
    StorageLockedError: "55P03",
    StorageTimeoutError: "57014",
    StorageFullError: "53100 58030",
    StorageUnavailableError: "08000 08003 08006 25006 25P03 53200 53300 55006 57P01 57P02 57P03 58P01 XX000",
}
CODES = {
    DataRefusedError: [121],
    SchemaMismatchError: [85],
    StorageForbiddenError: [13],
    StorageConflictError: [112, 11000],
    StorageLockedError: [24],
    StorageTimeoutError: [50],
    StorageFullError: [14031],
    StorageUnavailableError: [18, 64, 91, 189, 239, 11600, 987_654],
}


@pytest.mark.parametrize("expected", SQLSTATES)
def test_class_of_a_code(expected: type[StorageError]) -> None:
    for sqlstate in SQLSTATES[expected].split():
        assert postgresql.error_class(sqlstate) is expected, sqlstate
    for code in CODES[expected]:
        assert mongodb.error_class(code) is expected, code


def test_an_error_without_a_code_is_unavailable_and_all_but_data_and_schema_are_retryable() -> None:
    assert postgresql.error_class(None) is mongodb.error_class(None) is StorageUnavailableError
    final = {found for found in SQLSTATES if not issubclass(found, RetryableStorageError)}
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
def test_class_of_an_error_of_pymongo(error: Exception, expected: type[StorageError]) -> None:
    with pytest.raises(expected, match="MongoDB: ") as caught, mongodb.translated_errors():
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
    with pytest.raises(expected), mongodb.translated_errors():
        raise BulkWriteError(details)


def test_the_text_of_pymongo_is_without_the_answer_of_the_server() -> None:
    with pytest.raises(StorageError) as caught, mongodb.translated_errors():
        raise OperationFailure("short", 112, {"errmsg": "short", "long": "x" * 100})
    assert str(caught.value) == "MongoDB: short"


@pytest.mark.parametrize(
    ("translated_errors", "error", "text"),
    [
        (postgresql.translated_errors, psycopg2.OperationalError(), "PostgreSQL: OperationalError"),
        (mongodb.translated_errors, PyMongoError(), "MongoDB: PyMongoError"),
    ],
)
def test_an_error_without_a_text_is_named_and_other_errors_pass(
    translated_errors: Any, error: Exception, text: str
) -> None:
    with pytest.raises(StorageUnavailableError, match=text) as caught, translated_errors():
        raise error
    assert caught.value.__cause__ is error
    with pytest.raises(KeyError), translated_errors():
        raise KeyError
