"""Which calls are repeated, when, and for how long."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc
import tenacity
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from tenacity.stop import stop_base
from tenacity.wait import wait_base

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

# What a text of gRPC's core holds, and what it means. Of several the first counts.
_CAUSES: Final = (
    ("connection refused", "the connection is refused"),
    ("lookup failed", "the name is not found"),
    ("errors resolving", "the name is not found"),
    ("wrong_version_number", "it does not encrypt, and TLS is asked for"),
    ("certificate has expired", "its certificate has expired"),
    ("certificate is not yet valid", "its certificate is not valid yet"),
    ("hostname verification", "its certificate is for another name"),
    ("certificate_verify_failed", "its certificate is of no authority that is trusted here (tls_ca_file)"),
    ("settings frame", "it takes connections and says nothing"),
)

# A server that hangs up does not say why.
_HUNG_UP: Final = ("socket closed", "connection reset", "broken pipe", "handshake read failed", "endpoint closing")
_LAST_ERROR: Final = "last error: "


def cause_of(details: str | None, secure: bool) -> str:
    """Returns why a connection could not be made.

    Args:
        details: those of a call that ended with UNAVAILABLE; None where no attempt has ended yet.
        secure: whether TLS was asked for.
    """
    if details is None:
        return "it does not answer"
    text = details.lower()
    for part, cause in _CAUSES:
        if part in text:
            return cause
    if any(part in text for part in _HUNG_UP):
        if secure:
            return "it hangs up during the TLS handshake: it may ask for a client certificate (tls_cert_file)"
        return "it hangs up: it may take TLS alone (tls, tls_ca_file)"
    return " ".join(details.rpartition(_LAST_ERROR)[2].split())


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


_BACKOFF: Final = tenacity.wait_random_exponential(multiplier=0.2, max=5.0)
_ALWAYS: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
_WITH_RETRY_INFO: Final = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED)


def may_be_repeated(error: BaseException) -> bool:
    """Returns whether a call that ended with `error` is repeated without asking the caller.

    So are UNAVAILABLE; CANCELLED, by which gRPC sheds calls (a caller causes it by closing the storage or a generator,
    and then there is no `CallError`); RESOURCE_EXHAUSTED and DEADLINE_EXCEEDED where the gateway adds a RetryInfo:
    without it they are a limit or a deadline of the caller's own.
    """
    if not isinstance(error, CallError):
        return False
    if error.status.code in _ALWAYS:
        return True
    return error.status.code in _WITH_RETRY_INFO and error.status.retry_delay_s is not None


def retrying(limit_s: float, last_progress_s: Callable[[], float], closed: threading.Event) -> tenacity.Retrying:
    """Returns the loop that repeats a call, with back-off and jitter and never sooner than the gateway asks.

    Args:
        limit_s: for how long a call is repeated without progress, counted from the first failure after the last
            progress; 0 for never. The error is then raised as it is.
        last_progress_s: the time of the last progress, on the monotonic clock.
        closed: ends a wait at once when it is set.
    """
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(may_be_repeated),
        wait=_Wait(last_progress_s),
        stop=_Patience(limit_s, last_progress_s),
        sleep=tenacity.sleep_using_event(closed),
        reraise=True,
    )


class _Patience(stop_base):
    """Ends with the limit. What was before the first failure does not count: a dead link takes a minute to notice."""

    def __init__(self, limit_s: float, last_progress_s: Callable[[], float]) -> None:
        self._limit_s = limit_s
        self._last_progress_s = last_progress_s
        self._failing_since_s: float | None = None

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        now_s = time.monotonic()
        if self._failing_since_s is None or self._last_progress_s() > self._failing_since_s:
            self._failing_since_s = now_s
        return now_s + retry_state.upcoming_sleep - self._failing_since_s > self._limit_s


class _Wait(wait_base):
    """Grows with the attempts since the last progress, and is never shorter than the gateway asks."""

    def __init__(self, last_progress_s: Callable[[], float]) -> None:
        self._last_progress_s = last_progress_s
        self._seen_progress_s = last_progress_s()
        self._attempts_before_it = 0

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        if self._last_progress_s() != self._seen_progress_s:
            self._seen_progress_s = self._last_progress_s()
            self._attempts_before_it = retry_state.attempt_number - 1
        since = copy.copy(retry_state)
        since.attempt_number -= self._attempts_before_it
        error = retry_state.outcome.exception() if retry_state.outcome else None
        asked_s = error.status.retry_delay_s if isinstance(error, CallError) else None
        return max(_BACKOFF(since), asked_s or 0.0)
