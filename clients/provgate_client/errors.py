"""The errors of the client.

A call that raises a `RetryableStorageError` (`provgate_storage.errors`) may be repeated; after any other error it may
not. Invalid values are not sent to the gateway. They raise the storage interface's `InvalidValueError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc

from provgate_client.adapter.progress import WriteProgress
from provgate_storage.errors import RetryableStorageError, StorageError


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of a request that the gateway refused.

    Attributes:
        field: its path in the message, for example `contents[17].id`.
        description: what is wrong with it.
    """

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class CallStatus:
    """The status with which a call ended.

    Attributes:
        code: the status code.
        reason: the name of a value of `provgate.v1.ErrorReason` without its prefix; None if there is none, for example
            because the gateway was not reached.
        metadata: details of the reason, for example `exchange` and `routing_key`.
        violations: the fields that were refused.
        retry_delay_s: how long to wait before the call is repeated; None if the gateway does not ask for a delay.
        counts: the progress of this one call of a write; None for reads, or if the gateway did not send it.
    """

    code: grpc.StatusCode
    reason: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[FieldViolation, ...] = ()
    retry_delay_s: float | None = None
    counts: WriteProgress | None = None


class ProvgateError(StorageError):
    """The base of the client's errors."""


class StorageClosedError(ProvgateError):
    """The storage is not open: it was never opened, it was closed, or another process opened it before a fork."""


class CallError(ProvgateError):
    """A call ended with a status other than OK.

    Attributes:
        status: the status.
    """

    def __init__(self, message: str, status: CallStatus) -> None:
        super().__init__(message)
        self.status = status


class InvalidRequestError(CallError):
    """INVALID_ARGUMENT: the gateway or a worker refused a value. Nothing of its message, or package, is stored."""


class PermissionDeniedError(CallError):
    """PERMISSION_DENIED."""


class UnauthenticatedError(CallError):
    """UNAUTHENTICATED."""


class NotImplementedByGatewayError(CallError):
    """UNIMPLEMENTED: the gateway has no such call, or has no database to read from."""


class FailedPreconditionError(CallError):
    """FAILED_PRECONDITION: the operator must act, for example declare the topology."""


class RetryableCallError(CallError, RetryableStorageError):
    """The call failed for a reason that may pass. Entries of a write that were not acked may or may not be stored."""


class GatewayUnavailableError(RetryableCallError):
    """UNAVAILABLE: the gateway, the broker or the database cannot be reached."""


class GatewayBusyError(RetryableCallError):
    """RESOURCE_EXHAUSTED: a queue is full, the broker blocks publishers, or a limit of the gateway is reached."""


class QueryTimeoutError(CallError):
    """DEADLINE_EXCEEDED, QUERY_TIMEOUT: a query took longer than its limit. To repeat it would take as long again."""


class CallTimeoutError(RetryableCallError):
    """DEADLINE_EXCEEDED: the deadline passed, or there was no progress within the gateway's limit."""
