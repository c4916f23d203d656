"""How calls fail: `CallError`, its gRPC status with details, and a function for each failure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Final

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from provgate.v1 import errors_pb2
from provgate_broker.wire.package import Nack
from provgate_storage.errors import (
    DataRefusedError,
    InvalidValueError,
    SchemaMismatchError,
    StorageBusyError,
    StorageError,
    StorageForbiddenError,
    StorageTimeoutError,
)

DOMAIN: Final = "provgate"

_REASON_PREFIX: Final = "ERROR_REASON_"
_RETRY_DELAY_S: Final = 1.0


@dataclass(eq=False)
class CallError(Exception):
    """The failure of a call, with its status. Callers see the texts, so they never quote another error.

    Attributes:
        code: the status code.
        reason: the reason for programs; see errors.proto.
        message: the reason for people.
        field_path: the path of the request's field that is invalid, if there is one.
        retry_delay_s: seconds before the client should try again; None if that is of no use.
        metadata: more facts for programs.
    """

    code: grpc.StatusCode
    reason: errors_pb2.ErrorReason.ValueType
    message: str
    field_path: str | None = None
    retry_delay_s: float | None = None
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def status(self, counts: Mapping[str, str] = MappingProxyType({})) -> grpc.Status:
        """Returns the status with its details (google.rpc.Status, AIP-193).

        Args:
            counts: the counts of a write, for the metadata.
        """
        info = error_details_pb2.ErrorInfo(
            reason=errors_pb2.ErrorReason.Name(self.reason).removeprefix(_REASON_PREFIX),
            domain=DOMAIN,
            metadata={**self.metadata, **counts},
        )
        details = [_packed(info)]
        if self.field_path is not None:
            request = error_details_pb2.BadRequest()
            description = self.message.removeprefix(f"{self.field_path}: ")
            request.field_violations.add(field=self.field_path, description=description)
            details.append(_packed(request))
        if self.retry_delay_s is not None:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromTimedelta(timedelta(seconds=self.retry_delay_s))
            details.append(_packed(retry))
        code: int = self.code.value[0]
        status: grpc.Status = rpc_status.to_status(status_pb2.Status(code=code, message=self.message, details=details))
        return status


def invalid(error: InvalidValueError, field_path: str) -> CallError:
    """Returns the failure of a request with an invalid value."""
    reason = errors_pb2.ErrorReason.Value(_REASON_PREFIX + error.kind)
    message = f"{field_path}: {error}"
    return CallError(grpc.StatusCode.INVALID_ARGUMENT, reason, message, field_path)


def malformed() -> CallError:
    """Returns the failure of a request that cannot be decoded."""
    return CallError(
        grpc.StatusCode.INVALID_ARGUMENT, errors_pb2.ERROR_REASON_MALFORMED_REQUEST, "the request cannot be decoded"
    )


def too_many_ids(most: int) -> CallError:
    """Returns the failure of a read with too many ids."""
    message = f"ids: at most {most} in one call"
    return CallError(grpc.StatusCode.INVALID_ARGUMENT, errors_pb2.ERROR_REASON_TOO_MANY_IDS, message, "ids")


def too_many_entries(most: int) -> CallError:
    """Returns the failure of a write whose message has too many entries."""
    message = f"a message holds at most {most} entries: send them in several"
    return CallError(grpc.StatusCode.INVALID_ARGUMENT, errors_pb2.ERROR_REASON_TOO_MANY_ENTRIES, message)


def unauthenticated(message: str) -> CallError:
    """Returns the failure of a call of an unknown caller."""
    return CallError(grpc.StatusCode.UNAUTHENTICATED, errors_pb2.ERROR_REASON_UNAUTHENTICATED, message)


def permission_denied(message: str) -> CallError:
    """Returns the failure of a call whose caller lacks the role."""
    return CallError(grpc.StatusCode.PERMISSION_DENIED, errors_pb2.ERROR_REASON_PERMISSION_DENIED, message)


def refused(nack: Nack) -> CallError:
    """Returns the failure of a write with a package that a worker refused.

    The worker's message may quote the database: the log and the dead letter have it, and the caller does not.
    """
    return CallError(
        grpc.StatusCode.INVALID_ARGUMENT,
        errors_pb2.ERROR_REASON_PACKAGE_REFUSED,
        "a worker refused a package, which is a dead letter now",
        metadata={"worker_reason": nack.error, "rejected_count": str(nack.rejected_count)},
    )


def unroutable(exchange: str, routing_key: str) -> CallError:
    """Returns the failure of a write with a package that no queue takes."""
    return CallError(
        grpc.StatusCode.FAILED_PRECONDITION,
        errors_pb2.ERROR_REASON_UNROUTABLE,
        f"the broker has no queue for exchange {exchange} and routing key {routing_key}: are the workers set up,"
        " and with the same range counts?",
        metadata={"exchange": exchange, "routing_key": routing_key},
    )


def nacked(exchange: str, routing_key: str, *, queue_is_full: bool) -> CallError:
    """Returns the failure of a write with a package that the broker refused. The broker itself gives no reason."""
    reason, message = errors_pb2.ERROR_REASON_BROKER_REFUSED, f"the broker refused a package for queue {routing_key!r}"
    if queue_is_full:
        reason, message = errors_pb2.ERROR_REASON_QUEUE_FULL, f"queue {routing_key!r} of the broker is full"
    metadata = {"exchange": exchange, "routing_key": routing_key}
    return CallError(grpc.StatusCode.RESOURCE_EXHAUSTED, reason, message, None, _RETRY_DELAY_S, metadata)


def exhausted(
    reason: errors_pb2.ErrorReason.ValueType, message: str, retry_delay_s: float = _RETRY_DELAY_S
) -> CallError:
    """Returns a failure that ends when the load falls."""
    return CallError(grpc.StatusCode.RESOURCE_EXHAUSTED, reason, message, retry_delay_s=retry_delay_s)


def unavailable(reason: errors_pb2.ErrorReason.ValueType, message: str) -> CallError:
    """Returns a failure that ends when a server is back."""
    return CallError(grpc.StatusCode.UNAVAILABLE, reason, message, retry_delay_s=_RETRY_DELAY_S)


def timed_out(reason: errors_pb2.ErrorReason.ValueType, message: str) -> CallError:
    """Returns the failure of a call that reached a time limit."""
    return CallError(grpc.StatusCode.DEADLINE_EXCEEDED, reason, message)


def reads_unavailable() -> CallError:
    """Returns the failure of a read at a gateway without a storage."""
    return CallError(
        grpc.StatusCode.UNIMPLEMENTED,
        errors_pb2.ERROR_REASON_READS_UNAVAILABLE,
        "this gateway has no reads: the storage belongs to another deployment's workers",
    )


def internal() -> CallError:
    """Returns the failure of a call because of a fault of the gateway."""
    return CallError(
        grpc.StatusCode.INTERNAL, errors_pb2.ERROR_REASON_INTERNAL, "a fault of the gateway; its log has more"
    )


def of_storage(error: StorageError) -> CallError:
    """Returns the failure of a read that the storage could not serve."""
    if isinstance(error, DataRefusedError):
        return internal()
    if isinstance(error, StorageBusyError):
        return exhausted(
            errors_pb2.ERROR_REASON_TOO_MANY_CALLS, "the local storage's limit of concurrent reads is reached"
        )
    if isinstance(error, StorageTimeoutError):
        message = "the query reached the local storage's time limit"
        return timed_out(errors_pb2.ERROR_REASON_QUERY_TIMEOUT, message)
    if isinstance(error, StorageForbiddenError | SchemaMismatchError):
        return CallError(
            grpc.StatusCode.FAILED_PRECONDITION,
            errors_pb2.ERROR_REASON_STORAGE_MISMATCH,
            "the gateway may not read the local storage, or tables are missing; its log has the reason",
        )
    return unavailable(errors_pb2.ERROR_REASON_STORAGE_UNAVAILABLE, "the local storage cannot be read now")


def _packed(
    detail: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
