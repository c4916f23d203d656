"""From gRPC's errors to ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from provgate_client.errors import (
    CallError,
    CallStatus,
    CallTimeoutError,
    FailedPreconditionError,
    FieldViolation,
    GatewayBusyError,
    GatewayUnavailableError,
    InvalidRequestError,
    NotImplementedByGatewayError,
    PermissionDeniedError,
    QueryTimeoutError,
    RetryableCallError,
    UnauthenticatedError,
)
from provgate_client.progress import WriteProgress

# Every other code is a RetryableCallError.
_CLASSES: Final[Mapping[grpc.StatusCode, type[CallError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.UNIMPLEMENTED: NotImplementedByGatewayError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.UNAVAILABLE: GatewayUnavailableError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: GatewayBusyError,
    grpc.StatusCode.DEADLINE_EXCEEDED: CallTimeoutError,
}


# A reason of its own among those of DEADLINE_EXCEEDED: the others may pass.
_QUERY_TIMEOUT: Final = "QUERY_TIMEOUT"


def call_error(error: grpc.RpcError, method: str) -> CallError:
    """Returns the error of ours for a call of `method` that ended with `error`."""
    status = _status_of(error)
    text = f"{method}: {error.details() or status.code.name}"
    named = "; ".join(f"{violation.field}: {violation.description}" for violation in status.violations)
    kind = _CLASSES.get(status.code, RetryableCallError)
    if status.reason == _QUERY_TIMEOUT:
        kind = QueryTimeoutError
    return kind(f"{text} ({named})" if named else text, status)


def _status_of(error: Any) -> CallStatus:
    fields: dict[str, Any] = {}
    for detail in _details_of(error):
        fields |= _fields_of(detail)
    return CallStatus(code=error.code(), **fields)


def _details_of(error: Any) -> list[Any]:
    try:
        status: status_pb2.Status | None = rpc_status.from_call(error)
    except ValueError:  # The rich status contradicts the plain one: some proxy's, not the gateway's.
        return []
    return list(status.details) if status else []


def _fields_of(detail: Any) -> dict[str, Any]:
    info, bad_request, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
    )
    if detail.Unpack(info):
        metadata = dict(info.metadata)
        return {"reason": info.reason, "metadata": metadata, "counts": _counts_of(metadata)}
    if detail.Unpack(bad_request):
        found = tuple(FieldViolation(each.field, each.description) for each in bad_request.field_violations)
        return {"violations": found}
    if detail.Unpack(retry):
        return {"retry_delay_s": retry.retry_delay.ToTimedelta().total_seconds()}
    return {}


def _counts_of(metadata: Mapping[str, str]) -> WriteProgress | None:
    try:
        return WriteProgress(**{name: int(metadata[name]) for name in WriteProgress.__slots__})
    except (KeyError, ValueError):
        return None
