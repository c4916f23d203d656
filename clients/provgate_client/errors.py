"""What the client raises when the gateway, or the way to it, fails.

The class says what to do: a `RetryableStorageError` (`provgate_storage.errors`) may be repeated as it is, every other
may not. Values that are wrong in themselves never reach the gateway: they raise the storage interface's
`InvalidValueError`.
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
    """How a call ended, as far as the gateway said.

    Attributes:
        code: the status code.
        reason: the name of a value of `provgate.v1.ErrorReason` without its prefix; None where there is none, as when
            the gateway was not reached.
        metadata: what the gateway adds to the reason, for example `exchange` and `routing_key`.
        violations: the fields that were refused.
        retry_delay_s: how long to wait before the call is repeated; None where the gateway does not ask for that.
        counts: how far this one call of a write had come; None for reads, or where the gateway did not say.
    """

    code: grpc.StatusCode
    reason: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[FieldViolation, ...] = ()
    retry_delay_s: float | None = None
    counts: WriteProgress | None = None


class ProvgateError(StorageError):
    """The base of everything that the client raises of its own."""


class StorageClosedError(ProvgateError):
    """The storage is not open here: never opened, closed meanwhile, or opened by the process that forked this one."""


class CallError(ProvgateError):
    """A call ended with a status other than OK.

    Attributes:
        status: how it ended.
    """

    def __init__(self, message: str, status: CallStatus) -> None:
        super().__init__(message)
        self.status = status


class InvalidRequestError(CallError):
    """INVALID_ARGUMENT: the gateway or a worker refuses a value. Nothing of its message, or package, is stored."""


class PermissionDeniedError(CallError):
    """PERMISSION_DENIED."""


class UnauthenticatedError(CallError):
    """UNAUTHENTICATED."""


class NotImplementedByGatewayError(CallError):
    """UNIMPLEMENTED: the gateway has no such call, or stands in front of a deployment that it cannot read from."""


class FailedPreconditionError(CallError):
    """FAILED_PRECONDITION: the deployment needs its operator, for example because its topology was not declared."""


class RetryableCallError(CallError, RetryableStorageError):
    """The call failed for a reason that may pass. Of a write, what was not acked may or may not be stored."""


class GatewayUnavailableError(RetryableCallError):
    """UNAVAILABLE: the gateway, or something behind it, cannot be reached."""


class GatewayBusyError(RetryableCallError):
    """RESOURCE_EXHAUSTED: a queue is full, the broker blocks publishers, or too much is under way."""


class QueryTimeoutError(CallError):
    """DEADLINE_EXCEEDED, QUERY_TIMEOUT: a query took longer than its limit. Repeated, it would take as long again."""


class CallTimeoutError(RetryableCallError):
    """DEADLINE_EXCEEDED: the deadline came, or nothing moved for as long as the gateway waits."""
