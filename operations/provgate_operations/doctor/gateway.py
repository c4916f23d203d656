"""Checks of the gateway: reachable, and healthy by its health service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from provgate_client.adapter.channel import open_channel
from provgate_client.adapter.retrying import cause_of
from provgate_client.settings import GrpcSettings
from provgate_gateway.health.health import BROKER, SERVICE, STORAGE
from provgate_operations.doctor.deployment import Deployment
from provgate_operations.doctor.findings import Finding, broken, ok, skipped
from provgate_runtime import ConfigurationError
from provgate_runtime.addresses import local_address

CHECK: Final = "gateway"

_WHY: Final = {
    BROKER: "it does not reach the broker: writes wait, and end at their deadlines",
    STORAGE: "it does not reach its database: reads fail with UNAVAILABLE",
    SERVICE: "clients that ask for its health use another gateway",
}


def check_gateway(deployment: Deployment, timeout_s: float) -> list[Finding]:
    """Asks the gateway for the health of its services. Each answer has the time limit `timeout_s`."""
    settings = _client_settings(deployment)
    if settings is None:
        what = "neither provenance.storage nor an address in plain text in provenance.gateway names one"
        return [skipped(CHECK, what)]
    has_storage = deployment.broker is None or not deployment.broker.existing
    services = [SERVICE, BROKER, *([STORAGE] if has_storage else [])]
    try:
        channel = open_channel(settings)
    except ConfigurationError as error:
        return [broken(CHECK, error.message, "the client does not start", "correct the setting")]
    try:
        return list(_findings(health_pb2_grpc.HealthStub(channel), services, settings, timeout_s))
    finally:
        channel.close()


def _client_settings(deployment: Deployment) -> GrpcSettings | None:
    """Returns how to reach the gateway; None if that is not configured."""
    if deployment.client is not None:
        return deployment.client
    gateway = deployment.gateway
    # The gateway's section does not say which certificates a client must trust and show.
    if gateway is None or gateway.tls_certificate is not None or gateway.listen.endswith(":0"):
        return None
    return GrpcSettings(url=local_address(gateway.listen))


def _findings(
    stub: health_pb2_grpc.HealthStub, services: list[str], settings: GrpcSettings, timeout_s: float
) -> Iterator[Finding]:
    target = settings.address.target
    for service in services:
        try:
            status = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s).status
        except grpc.RpcError as error:
            yield _no_answer(error, settings)
            return
        if status == health_pb2.HealthCheckResponse.SERVING:
            yield ok(CHECK, f"{service} of {target} is SERVING")
        else:
            remedy = "see /readyz of its watch port, its log, and the other findings"
            yield broken(CHECK, f"{service} of {target} is NOT_SERVING", _WHY[service], remedy)


def _no_answer(error: grpc.RpcError, settings: GrpcSettings) -> Finding:
    code, target = error.code(), settings.address.target
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        remedy = "provgate-gateway, or correct url and the tls_ settings of provenance.storage"
        cause = cause_of(error.details() if code is grpc.StatusCode.UNAVAILABLE else None, settings.secure)
        return broken(CHECK, f"no gateway answers at {target}: {cause}", "nobody can write or read", remedy)
    remedy = "correct provenance.storage.url: it is the address of a gateway"
    return broken(CHECK, f"{target} answers {code.name}: {error.details()}", "it is no gateway, or refuses", remedy)
