"""The statuses that calls end with."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from provgate.v1 import errors_pb2
from provgate_broker.topology.policy import Exchange
from provgate_broker.wire.package import Nack
from provgate_gateway import errors
from provgate_gateway.errors import CallError
from provgate_storage.errors import (
    DataRefusedError,
    InvalidValue,
    InvalidValueError,
    SchemaMismatchError,
    StorageBusyError,
    StorageError,
    StorageForbiddenError,
    StorageTimeoutError,
    StorageUnavailableError,
)

COUNTS = {"received_count": "3", "published_count": "2", "acked_count": "1"}


def details_of(status: Any) -> tuple[status_pb2.Status, dict[str, Any]]:
    (packed,) = [value for key, value in status.trailing_metadata if key == "grpc-status-details-bin"]
    rich = status_pb2.Status.FromString(packed)
    found: dict[str, Any] = {}
    for detail in rich.details:
        name = detail.type_url.rpartition(".")[2]
        found[name] = getattr(error_details_pb2, name)()
        assert detail.Unpack(found[name])
    return rich, found


TRANSIENT = [
    errors.exhausted(errors_pb2.ERROR_REASON_QUEUE_FULL, "full"),
    errors.unavailable(errors_pb2.ERROR_REASON_BROKER_UNAVAILABLE, "gone"),
]
LASTING = [
    errors.malformed(),
    errors.refused(Nack("refused", "what the database said", 7)),
    errors.unroutable("content", "content_add.unknown.a"),
    errors.timed_out(errors_pb2.ERROR_REASON_NO_PROGRESS, "no progress"),
    errors.reads_unavailable(),
    errors.internal(),
]


@pytest.mark.parametrize("error", [*TRANSIENT, *LASTING])
def test_every_status_has_code_message_and_reason(error: CallError) -> None:
    status = error.status(COUNTS)
    rich, details = details_of(status)
    assert status.code is error.code
    assert rich.code == error.code.value[0]
    assert rich.message == status.details == error.message
    assert details["ErrorInfo"].domain == "provgate"
    assert "ERROR_REASON_" + details["ErrorInfo"].reason == errors_pb2.ErrorReason.Name(error.reason)
    assert dict(details["ErrorInfo"].metadata).items() >= COUNTS.items()
    assert "BadRequest" not in details


@pytest.mark.parametrize("error", TRANSIENT)
def test_transient_failures_have_a_retry_delay(error: CallError) -> None:
    assert details_of(error.status())[1]["RetryInfo"].retry_delay.ToSeconds() >= 1


@pytest.mark.parametrize("error", LASTING)
def test_other_failures_have_none(error: CallError) -> None:
    assert "RetryInfo" not in details_of(error.status())[1]


def test_an_unroutable_package_names_exchange_and_routing_key() -> None:
    error = errors.unroutable(Exchange.CONTENT, "content_add.unknown.a")
    metadata = details_of(error.status(COUNTS))[1]["ErrorInfo"].metadata
    assert error.code is grpc.StatusCode.FAILED_PRECONDITION
    assert dict(metadata) == {**COUNTS, "exchange": "content", "routing_key": "content_add.unknown.a"}
    assert "for exchange content and routing key content_add.unknown.a:" in error.message


@pytest.mark.parametrize("kind", list(InvalidValue))
def test_every_kind_of_invalid_value_has_a_reason(kind: InvalidValue) -> None:
    rich, details = details_of(errors.invalid(InvalidValueError(kind, "it is wrong"), "contents[17].id").status())
    assert rich.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert details["ErrorInfo"].reason == kind
    (violation,) = details["BadRequest"].field_violations
    assert (violation.field, violation.description) == ("contents[17].id", "it is wrong")
    assert rich.message == "contents[17].id: it is wrong"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StorageUnavailableError("password=hunter2"), grpc.StatusCode.UNAVAILABLE),
        (StorageBusyError("password=hunter2"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (SchemaMismatchError("password=hunter2"), grpc.StatusCode.FAILED_PRECONDITION),
        (StorageForbiddenError("password=hunter2"), grpc.StatusCode.FAILED_PRECONDITION),
        (StorageTimeoutError("password=hunter2"), grpc.StatusCode.DEADLINE_EXCEEDED),
        (DataRefusedError("password=hunter2"), grpc.StatusCode.INTERNAL),
    ],
)
def test_no_text_of_the_storage_reaches_a_caller(error: StorageError, code: grpc.StatusCode) -> None:
    status = errors.of_storage(error).status()
    rich, _ = details_of(status)
    assert status.code is code
    assert "hunter2" not in str(rich)
