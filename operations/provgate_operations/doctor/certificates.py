"""Checks of the certificates that the configuration names: whether they expire soon."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from provgate_broker.settings import PATH as RABBITMQ_PATH
from provgate_client.settings import SECTION_PATH as STORAGE_PATH
from provgate_operations.doctor.deployment import GATEWAY_PATH, Deployment
from provgate_operations.doctor.findings import Finding, broken, ok, skipped, warning
from provgate_runtime import ConfigurationError
from provgate_runtime.certificates import certificate_expiry

CHECK: Final = "certificates"

_SOON: Final = timedelta(days=14)


def certificate_findings(deployment: Deployment) -> Iterator[Finding]:
    """Yields a finding for each certificate that a program of the deployment shows."""
    files: dict[str, str | None] = {}
    if deployment.gateway is not None:
        files[f"{GATEWAY_PATH}.tls_certificate"] = deployment.gateway.tls_certificate
    if deployment.broker is not None:
        files[f"{RABBITMQ_PATH}.tls_cert_file"] = deployment.broker.settings.tls_cert_file
    if deployment.client is not None:
        files[f"{STORAGE_PATH}.tls_cert_file"] = deployment.client.tls_cert_file
    if not any(files.values()):
        yield skipped(CHECK, "no certificate is configured")
    for setting, file in files.items():
        if file is not None:
            yield _finding(setting, file, datetime.now(UTC))


def _finding(setting: str, file: str, now: datetime) -> Finding:
    why = "after that, clients and servers refuse the connection"
    remedy = f"put a new certificate into {file}, and its key beside it"
    try:
        expiry = certificate_expiry(file)
    except ConfigurationError as error:
        return broken(CHECK, f"{setting}: {error.message}", "the program that shows it does not start", remedy)
    if expiry <= now:
        return broken(CHECK, f"{setting}: {file} has expired at {expiry:%Y-%m-%d %H:%M} UTC", why, remedy)
    if expiry <= now + _SOON:
        return warning(CHECK, f"{setting}: {file} expires at {expiry:%Y-%m-%d %H:%M} UTC", why, remedy)
    return ok(CHECK, f"{setting}: {file} is valid until {expiry:%Y-%m-%d}")
