"""Errors of PostgreSQL become the classes that say what to do."""

from __future__ import annotations

import psycopg2
import pytest

from provgate_storage.errors import (
    DataRefusedError,
    RetryableStorageError,
    SchemaMismatchError,
    StorageConflictError,
    StorageError,
    StorageForbiddenError,
    StorageFullError,
    StorageLockedError,
    StorageTimeoutError,
    StorageUnavailableError,
)
from provgate_storage.postgresql.failures import error_class, translated_errors

EXPECTED: dict[str | None, type[StorageError]] = {
    None: StorageUnavailableError,
    "08000": StorageUnavailableError,
    "08003": StorageUnavailableError,
    "08006": StorageUnavailableError,
    "22001": DataRefusedError,
    "22021": DataRefusedError,
    "22P05": DataRefusedError,
    "23505": DataRefusedError,
    "23514": DataRefusedError,
    "25006": StorageUnavailableError,
    "25P03": StorageUnavailableError,
    "3D000": SchemaMismatchError,
    "40001": StorageConflictError,
    "40P01": StorageConflictError,
    "42501": StorageForbiddenError,
    "42703": SchemaMismatchError,
    "42P01": SchemaMismatchError,
    "53100": StorageFullError,
    "53200": StorageUnavailableError,
    "53300": StorageUnavailableError,
    "54000": DataRefusedError,
    "55006": StorageUnavailableError,
    "55P03": StorageLockedError,
    "57014": StorageTimeoutError,
    "57P01": StorageUnavailableError,
    "57P02": StorageUnavailableError,
    "57P03": StorageUnavailableError,
    "58030": StorageFullError,
    "58P01": StorageUnavailableError,
    "XX000": StorageUnavailableError,
}


@pytest.mark.parametrize(("sqlstate", "expected"), EXPECTED.items())
def test_class_of_a_sqlstate(sqlstate: str | None, expected: type[StorageError]) -> None:
    assert error_class(sqlstate) is expected


def test_only_data_and_schema_are_not_retryable() -> None:
    final = {found for found in EXPECTED.values() if not issubclass(found, RetryableStorageError)}
    assert final == {DataRefusedError, SchemaMismatchError}


def test_an_error_without_a_text_is_named() -> None:
    with pytest.raises(StorageUnavailableError, match="PostgreSQL: OperationalError") as caught, translated_errors():
        raise psycopg2.OperationalError
    assert isinstance(caught.value.__cause__, psycopg2.OperationalError)


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), translated_errors():
        raise KeyError
