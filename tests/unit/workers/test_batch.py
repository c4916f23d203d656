from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provgate_broker.dead_letters.messages import DeadLetterReason
from provgate_broker.topology.policy import Operation, RangePolicy, WriteMethod, location_id
from provgate_storage.errors import (
    DataRefusedError,
    SchemaMismatchError,
    StorageConflictError,
    StorageError,
    StorageFullError,
    StorageLockedError,
    StorageUnavailableError,
)
from provgate_workers.package import Refused, Stored
from provgate_workers.store import batch as batch_module
from provgate_workers.store.batch import BatchReport, store_batch
from tests.support.entries import encode_package
from tests.support.reference import InMemoryProvenanceStorage

POLICY = RangePolicy()
CONTENT_ADD = Operation(WriteMethod.CONTENT_ADD)
DATE = datetime(2020, 1, 1, tzinfo=UTC)
LATER = datetime(2021, 1, 1, tzinfo=UTC)


def id_of(number: int) -> bytes:
    return bytes([number]) * 20


class FailingStorage(InMemoryProvenanceStorage):
    """Stores as the reference does, unless `failure` has something against a call."""

    def __init__(self, failure: Callable[[set[bytes]], Exception | None]) -> None:
        super().__init__()
        self.calls: list[set[bytes]] = []
        self._failure = failure

    def content_add(self, cnts: Any) -> bool:
        self.calls.append(set(cnts))
        error = self._failure(set(cnts))
        if error is not None:
            raise error
        return super().content_add(cnts)


def store(storage: InMemoryProvenanceStorage, *bodies: bytes) -> BatchReport:
    return store_batch(storage, POLICY, CONTENT_ADD, [(0, body) for body in bodies])


def package(*numbers: int) -> bytes:
    return encode_package((id_of(number), DATE) for number in numbers)


def reference(failure: Callable[[set[bytes]], Exception | None] = lambda _: None) -> FailingStorage:
    storage = FailingStorage(failure)
    storage.open()
    return storage


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_module, "_CONFLICT_WAIT_MAX_S", 0.0)
    monkeypatch.setattr(batch_module, "_UNEXPECTED_WAIT_MAX_S", 0.0)


def test_packages_are_stored_in_one_call_and_each_has_its_own_count() -> None:
    storage = reference()
    report = store(storage, package(1, 2), package(2, 2, 3), package())
    assert report.outcomes == [Stored(2), Stored(3), Stored(0)]
    assert storage.calls == [{id_of(1), id_of(2), id_of(3)}]
    assert report.trouble is None


def test_what_cannot_be_decoded_is_left_out() -> None:
    storage = reference()
    report = store(storage, b"nonsense", package(1), package(2)[:-1])
    assert [type(outcome) for outcome in report.outcomes] == [Refused, Stored, Refused]
    refused = report.outcomes[0]
    assert isinstance(refused, Refused)
    assert refused.reason is DeadLetterReason.MALFORMED
    assert set(storage.content_get([id_of(1)])) == {id_of(1)}


def test_nothing_to_store_is_no_call() -> None:
    storage = reference()
    assert [type(outcome) for outcome in store(storage, b"", b"x").outcomes] == [Refused, Refused]
    assert storage.calls == []


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_just_what_is_refused_is_refused(refused: list[bool]) -> None:
    bad = {id_of(number) for number, is_bad in enumerate(refused) if is_bad}
    storage = reference(lambda ids: DataRefusedError("no") if ids & bad else None)
    report = store(storage, *(package(number) for number in range(len(refused))))
    assert [isinstance(outcome, Refused) for outcome in report.outcomes] == refused
    stored = {id_of(number) for number, is_bad in enumerate(refused) if not is_bad}
    assert set(storage.content_get([id_of(number) for number in range(len(refused))])) == stored
    assert len(storage.calls) <= 2 * len(refused)


@pytest.mark.parametrize("error", [StorageUnavailableError("away"), StorageFullError("full")])
def test_a_storage_in_trouble_leaves_packages_to_be_tried_again(error: StorageError) -> None:
    storage = reference(lambda _: error)
    report = store(storage, package(1), b"nonsense", package(2))
    assert report.trouble is error
    assert [type(outcome) for outcome in report.outcomes] == [type(None), Refused, type(None)]
    assert len(storage.calls) == 1


def test_trouble_while_a_refused_package_is_searched_keeps_what_is_stored() -> None:
    def failure(ids: set[bytes]) -> Exception | None:
        if id_of(3) in ids:
            return DataRefusedError("no") if len(ids) > 1 else StorageUnavailableError("away")
        return None

    report = store(reference(failure), *(package(number) for number in range(4)))
    assert report.outcomes == [Stored(1), Stored(1), Stored(1), None]
    assert isinstance(report.trouble, StorageUnavailableError)


def test_a_conflict_is_tried_again_at_once() -> None:
    answers = iter([StorageConflictError("deadlock"), StorageConflictError("deadlock"), None])
    report = store(reference(lambda _: next(answers)), package(1))
    assert report.outcomes == [Stored(1)]


def test_a_conflict_without_end_is_trouble() -> None:
    report = store(reference(lambda _: StorageConflictError("deadlock")), package(1))
    assert report.outcomes == [None]
    assert isinstance(report.trouble, StorageConflictError)


@pytest.mark.parametrize("first", [StorageLockedError("met another"), StorageConflictError("met another")])
def test_a_lock_that_is_not_granted_is_told_and_waited_for_once_more(
    first: StorageError, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    answers = iter([first, StorageLockedError("locked"), None])
    storage = reference(lambda _: next(answers))
    report = store(storage, package(1))
    assert isinstance(report.trouble, StorageLockedError)
    assert len(storage.calls) == 2
    assert "met another" in caplog.text


def test_a_storage_that_says_false_is_in_trouble() -> None:
    class Declining(FailingStorage):
        def content_add(self, cnts: Any) -> bool:
            return False

    assert isinstance(store(Declining(lambda _: None), package(1)).trouble, StorageUnavailableError)


def test_another_schema_ends_the_program() -> None:
    with pytest.raises(SchemaMismatchError):
        store(reference(lambda _: SchemaMismatchError("version 2")), package(1), package(2))


def test_an_unknown_error_is_isolated_insisted_on_and_refused() -> None:
    storage = reference(lambda ids: ZeroDivisionError() if id_of(2) in ids else None)
    report = store(storage, package(1), package(2), package(3))
    assert [type(outcome) for outcome in report.outcomes] == [Stored, Refused, Stored]
    refused = report.outcomes[1]
    assert isinstance(refused, Refused)
    assert refused.reason is DeadLetterReason.UNEXPECTED
    assert "ZeroDivisionError" in refused.message
    assert storage.calls.count({id_of(2)}) == 4


def test_an_unknown_error_that_passes_loses_nothing() -> None:
    answers = iter([ZeroDivisionError(), ZeroDivisionError(), None])
    assert store(reference(lambda _: next(answers)), package(1)).outcomes == [Stored(1)]


def test_rows_of_other_ranges_are_stored_and_counted() -> None:
    report = store(reference(), package(0x01, 0x0F, 0x10), package(0xFF))
    assert report.outcomes == [Stored(3), Stored(1)]
    assert report.stray_row_counts == {0: 2}


def test_packages_of_several_ranges_are_stored_in_one_call() -> None:
    storage = reference()
    bodies = [(0, package(0x01)), (1, package(0x10, 0x11)), (2, package(0x20, 0x30))]
    report = store_batch(storage, POLICY, CONTENT_ADD, bodies)
    assert report.outcomes == [Stored(1), Stored(2), Stored(2)]
    assert report.stray_row_counts == {2: 1}
    assert storage.calls == [{id_of(number) for number in (0x01, 0x10, 0x11, 0x20, 0x30)}]


def test_a_location_belongs_to_the_range_of_its_digest() -> None:
    path = b"src/a.c"
    operation = Operation(WriteMethod.LOCATION_ADD)
    home = location_id(path)[0] >> 4
    for range_number in range(16):
        report = store_batch(reference(), POLICY, operation, [(range_number, encode_package([(path,)]))])
        assert report.stray_row_counts == ({} if range_number == home else {range_number: 1})
