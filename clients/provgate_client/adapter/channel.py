"""The gRPC channel to the gateway."""

from __future__ import annotations

from typing import Any, Final

import grpc

from provgate.v1.provenance_storage_pb2 import WithPathRequest
from provgate.v1.provenance_storage_pb2_grpc import ProvenanceStorageStub
from provgate_client.adapter.retrying import cause_of
from provgate_client.errors import CallStatus, GatewayUnavailableError
from provgate_client.settings import SECTION_PATH, GrpcSettings
from provgate_runtime.certificates import read_pem

_RECONNECT_FIRST_MS: Final = 100
_RECONNECT_MAX_MS: Final = 5_000
_KEEPALIVE_TIMEOUT_MS: Final = 20_000
_CAUSE_TIMEOUT_S: Final = 0.5


def open_channel(settings: GrpcSettings) -> grpc.Channel:
    """Returns a channel to the gateway that `settings` name, not yet connected.

    Raises:
        ConfigurationError: a file of certificates or keys cannot be read.
    """
    target, options = settings.address.target, _options(settings)
    if settings.secure:
        return grpc.secure_channel(target, _credentials(settings), options)
    return grpc.insecure_channel(target, options)


def call_metadata(settings: GrpcSettings) -> tuple[tuple[str, str], ...] | None:
    """Returns the metadata that every call has; None for none."""
    return None if settings.token is None else (("authorization", f"Bearer {settings.token}"),)


def wait_until_ready(channel: grpc.Channel, settings: GrpcSettings) -> None:
    """Connects, and waits for one answer, whatever it says.

    gRPC's own `channel_ready_future` would make every close of the channel 0.2 s slower.

    Raises:
        GatewayUnavailableError: nothing answers within the connect timeout. The text says what the last attempt met.
    """
    failure = _ask(channel, settings, settings.connect_timeout_s, wait_for_ready=True)
    if failure is None or failure.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
        return
    # A call that does not wait ends at once with what the last attempt to connect met.
    last = _ask(channel, settings, _CAUSE_TIMEOUT_S, wait_for_ready=False)
    if last is None or last.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return
    cause = cause_of(last.details() if last.code() is grpc.StatusCode.UNAVAILABLE else None, settings.secure)
    message = f"no gateway answers at {settings.address.target} within {settings.connect_timeout_s:g} s: {cause}"
    raise GatewayUnavailableError(message, CallStatus(grpc.StatusCode.UNAVAILABLE)) from last


def _ask(channel: grpc.Channel, settings: GrpcSettings, timeout_s: float, *, wait_for_ready: bool) -> Any:
    """Makes a call, and returns the error that it ends with; None where there is none."""
    metadata = call_metadata(settings)
    try:
        ProvenanceStorageStub(channel).WithPath(
            WithPathRequest(), timeout=timeout_s, wait_for_ready=wait_for_ready, metadata=metadata
        )
    except grpc.RpcError as error:
        return error
    return None


def _options(settings: GrpcSettings) -> list[tuple[str, int]]:
    return [
        # The environment's proxies are for the web; the gateway is reached directly.
        ("grpc.enable_http_proxy", 0),
        # gRPC's own back-off ends at two minutes, longer than a restart of the gateway deserves.
        ("grpc.initial_reconnect_backoff_ms", _RECONNECT_FIRST_MS),
        ("grpc.min_reconnect_backoff_ms", _RECONNECT_FIRST_MS),
        ("grpc.max_reconnect_backoff_ms", _RECONNECT_MAX_MS),
        # Without it a peer that vanished without a word is never missed.
        ("grpc.keepalive_time_ms", round(settings.keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        # Two storages of one process have a connection each: one's reconnect back-off is not the other's.
        ("grpc.use_local_subchannel_pool", 1),
    ]


def _credentials(settings: GrpcSettings) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=_read(settings.tls_ca_file, "tls_ca_file"),
        private_key=_read(settings.tls_key_file, "tls_key_file"),
        certificate_chain=_read(settings.tls_cert_file, "tls_cert_file"),
    )


def _read(file: str | None, name: str) -> bytes | None:
    return None if file is None else read_pem(file, f"{SECTION_PATH}.{name}")
