"""What follows from a failed call: the error that it raises, whether it is repeated, and why no connection was made."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from provgate_client.adapter.progress import WriteProgress
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
_QUERY_TIMEOUT: Final = "QUERY_TIMEOUT"


def call_error(error: grpc.RpcError, method: str) -> CallError:
    """Returns the client's error for a call of `method` that ended with `error`."""
    status = CallStatus(code=error.code(), **_details_of(error))
    text = f"{method}: {error.details() or status.code.name}"
    if status.violations:
        named = "; ".join(f"{violation.field}: {violation.description}" for violation in status.violations)
        text = f"{text} ({named})"
    # DEADLINE_EXCEEDED with this reason, and only with this one, does not pass by itself.
    if status.reason == _QUERY_TIMEOUT:
        return QueryTimeoutError(text, status)
    return _CLASSES.get(status.code, RetryableCallError)(text, status)


def _details_of(error: grpc.RpcError) -> dict[str, Any]:
    """Returns the fields of `CallStatus` that the details of a status give (google.rpc.Status)."""
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # The rich status contradicts the plain one. A proxy sent it, not the gateway.
        return {}
    fields: dict[str, Any] = {}
    info, request, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for detail in status.details if status is not None else ():
        if detail.Unpack(info):
            fields |= {"reason": info.reason, "metadata": dict(info.metadata), "counts": _counts_of(info.metadata)}
        elif detail.Unpack(request):
            fields["violations"] = tuple(
                FieldViolation(each.field, each.description) for each in request.field_violations
            )
        elif detail.Unpack(retry):
            fields["retry_delay_s"] = retry.retry_delay.ToTimedelta().total_seconds()
    return fields


def _counts_of(metadata: Mapping[str, str]) -> WriteProgress | None:
    try:
        return WriteProgress(**{name: int(metadata[name]) for name in WriteProgress.__slots__})
    except (KeyError, ValueError):
        return None


_BACKOFF_FIRST_S: Final = 0.2
_BACKOFF_MAX_S: Final = 5.0


class Retry:
    """Decides whether a call is repeated after a failure, and pauses before that. For one thread.

    The pause grows with each failure, is jittered, and is never shorter than the gateway asks. Progress resets the
    pause and the limit.

    Args:
        limit_s: how long a call is repeated without progress, counted from the first failure; 0 for never. What
            happens before the first failure does not count: it takes a minute to notice a dead connection.
        closed: ends a pause when it is set.
    """

    def __init__(self, limit_s: float, closed: threading.Event) -> None:
        self._limit_s = limit_s
        self._closed = closed
        self._failure_count = 0
        self._failing_since_s = 0.0

    def progressed(self) -> None:
        """Resets the pause and the limit."""
        self._failure_count = 0

    def pause(self, error: Exception) -> bool:
        """Returns whether to repeat the call that ended with `error`, after a pause if so."""
        if not isinstance(error, CallError) or not may_be_repeated(error.status):
            return False
        now_s = time.monotonic()
        if self._failure_count == 0:
            self._failing_since_s = now_s
        backoff_s = min(_BACKOFF_MAX_S, _BACKOFF_FIRST_S * 2 ** min(self._failure_count, 10))
        self._failure_count += 1
        pause_s = max(random.uniform(0, backoff_s), error.status.retry_delay_s or 0.0)
        if self._limit_s == 0 or now_s + pause_s - self._failing_since_s > self._limit_s:
            return False
        self._closed.wait(pause_s)
        return True


def may_be_repeated(status: CallStatus) -> bool:
    """Returns whether a call that ended with `status` is repeated without asking the caller.

    UNAVAILABLE and CANCELLED are: gRPC itself cancels calls when it sheds load. (If the caller cancels, by closing the
    storage or a generator, there is no `CallError`.) RESOURCE_EXHAUSTED and DEADLINE_EXCEEDED are if the gateway adds a
    RetryInfo. Without one they are a limit or a deadline that the caller has set.
    """
    if status.code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED):
        return status.retry_delay_s is not None
    return status.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


# Parts of messages of gRPC's core, and what they mean. The first one that matches counts.
_CAUSES: Final = (
    ("connection refused", "the connection is refused"),
    ("lookup failed", "the name is not found"),
    ("errors resolving", "the name is not found"),
    ("wrong_version_number", "it does not use TLS, but the client does"),
    ("certificate has expired", "its certificate has expired"),
    ("certificate is not yet valid", "its certificate is not valid yet"),
    ("hostname verification", "its certificate is for another name"),
    ("certificate_verify_failed", "its certificate is from no authority that the client trusts (tls_ca_file)"),
    ("settings frame", "it accepts connections but does not answer"),
)
_HUNG_UP: Final = ("socket closed", "connection reset", "broken pipe", "handshake read failed", "endpoint closing")


def cause_of(details: str | None, secure: bool) -> str:
    """Returns why a connection could not be made.

    Args:
        details: those of a call that ended with UNAVAILABLE; None if no attempt has ended yet.
        secure: whether the client uses TLS.
    """
    if details is None:
        return "it does not answer"
    text = details.lower()
    for part, cause in _CAUSES:
        if part in text:
            return cause
    if any(part in text for part in _HUNG_UP):  # A server that closes the connection does not say why.
        if secure:
            return "it closes the connection in the TLS handshake: it may require a client certificate (tls_cert_file)"
        return "it closes the connection: it may require TLS (tls, tls_ca_file)"
    return " ".join(details.rpartition("last error: ")[2].split())
