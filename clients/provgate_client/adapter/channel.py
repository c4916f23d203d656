"""The gRPC channel to the gateway, and the session that every call of an open storage uses."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from provgate.v1.provenance_storage_pb2 import WithPathRequest
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_client.adapter.retrying import Retry, call_error, cause_of
from provgate_client.errors import CallStatus, GatewayUnavailableError, ProvgateError, StorageClosedError
from provgate_client.settings import SECTION_PATH, GrpcSettings
from provgate_runtime.certificates import read_pem

_RECONNECT_FIRST_MS: Final = 100
_RECONNECT_MAX_MS: Final = 5_000
_KEEPALIVE_TIMEOUT_MS: Final = 20_000
_CAUSE_TIMEOUT_S: Final = 0.5


def open_channel(settings: GrpcSettings) -> grpc.Channel:
    """Returns a channel to the gateway that `settings` name, not connected yet.

    Raises:
        ConfigurationError: a file of certificates or keys cannot be read.
    """
    options = [
        # Proxies of the environment are for the web; the gateway is reached directly.
        ("grpc.enable_http_proxy", 0),
        # gRPC's own back-off grows to two minutes. A gateway restarts in seconds.
        ("grpc.initial_reconnect_backoff_ms", _RECONNECT_FIRST_MS),
        ("grpc.min_reconnect_backoff_ms", _RECONNECT_FIRST_MS),
        ("grpc.max_reconnect_backoff_ms", _RECONNECT_MAX_MS),
        # Without keepalive a peer that disappears without closing the connection is never noticed.
        ("grpc.keepalive_time_ms", round(settings.keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        # Two storages of one process have a connection each, and so a reconnect back-off each.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if not settings.secure:
        return grpc.insecure_channel(settings.address.target, options)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_read(settings.tls_ca_file, "tls_ca_file"),
        private_key=_read(settings.tls_key_file, "tls_key_file"),
        certificate_chain=_read(settings.tls_cert_file, "tls_cert_file"),
    )
    return grpc.secure_channel(settings.address.target, credentials, options)


def _read(file: str | None, name: str) -> bytes | None:
    return None if file is None else read_pem(file, f"{SECTION_PATH}.{name}")


class GatewaySession:
    """A connected channel. Safe to use from many threads of the process that made it; gRPC does not survive a fork.

    Raises:
        GatewayUnavailableError: no gateway answers within the connect timeout. The text has the cause.
        ConfigurationError: a file that the settings name cannot be read.
    """

    def __init__(self, settings: GrpcSettings) -> None:
        self.settings = settings
        self._pid = os.getpid()
        self._closed = threading.Event()
        self._metadata = None if settings.token is None else (("authorization", f"Bearer {settings.token}"),)
        self._channel = open_channel(settings)
        self._stub = ProvenanceStorageStub(self._channel)
        try:
            self._wait_until_ready()
        except BaseException:
            self._channel.close()
            raise

    def call(self, method: str, request: Message | Iterator[Message], timeout_s: float | None) -> Any:
        """Calls the RPC of a method of the interface: ContentAdd for `content_add`.

        Raises:
            StorageClosedError: the session is closed, or belongs to another process.
            grpc.RpcError: a unary call failed. A streamed one raises it when it is iterated over.
        """
        if self._closed.is_set():
            raise StorageClosedError("the storage was closed")
        if os.getpid() != self._pid:
            raise StorageClosedError("the storage was opened before this process was forked: open it again here")
        try:
            return getattr(self._stub, method.title().replace("_", ""))(
                request, timeout=timeout_s, metadata=self._metadata
            )
        except ValueError as error:  # gRPC's error for a channel that was closed since the check above.
            if self._closed.is_set():
                raise StorageClosedError("the storage was closed") from error
            raise

    def failure(self, error: grpc.RpcError, method: str) -> ProvgateError:
        """Returns the client's error for a call of `method` that ended with `error`."""
        if self._closed.is_set():
            return StorageClosedError(f"{method}: the storage was closed during the call")
        return call_error(error, method)

    def retry(self) -> Retry:
        """Returns what decides whether a call of this session is repeated. Closing the session ends its pauses."""
        return Retry(self.settings.retry_time_s, self._closed)

    def close(self) -> None:
        """Cancels all running calls; they raise `StorageClosedError`. Idempotent."""
        self._closed.set()
        if os.getpid() == self._pid:
            self._channel.close()

    def _wait_until_ready(self) -> None:
        """Waits for an answer of the gateway, of any status.

        A call is used because gRPC's `channel_ready_future` makes every close of the channel 0.2 s slower.
        """
        timeout_s = self.settings.connect_timeout_s
        failure = self._ask(timeout_s, wait_for_ready=True)
        if failure is None or failure.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            return
        # A call that does not wait for a connection ends at once with the error of the last attempt to connect.
        last = self._ask(_CAUSE_TIMEOUT_S, wait_for_ready=False)
        if last is None or last.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            return
        details = last.details() if last.code() is grpc.StatusCode.UNAVAILABLE else None
        cause = cause_of(details, self.settings.secure)
        message = f"no gateway answers at {self.settings.address.target} within {timeout_s:g} s: {cause}"
        raise GatewayUnavailableError(message, CallStatus(grpc.StatusCode.UNAVAILABLE)) from last

    def _ask(self, timeout_s: float, *, wait_for_ready: bool) -> grpc.RpcError | None:
        """Calls WithPath, and returns the error that the call ends with, if any."""
        try:
            self._stub.WithPath(
                WithPathRequest(), timeout=timeout_s, wait_for_ready=wait_for_ready, metadata=self._metadata
            )
        except grpc.RpcError as error:
            return error
        return None
