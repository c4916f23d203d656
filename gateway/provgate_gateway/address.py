"""The address to serve on, and with which credentials."""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path

import grpc

from provgate_config import ConfigurationError
from provgate_gateway.settings import GatewaySettings

_PATH = "provenance.gateway"


def is_loopback(host: str) -> bool:
    """Returns whether only this machine reaches a host name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def server_credentials(settings: GatewaySettings) -> grpc.ServerCredentials | None:
    """Returns the credentials to serve with; None for plain text.

    Raises:
        ConfigurationError: plain text is not allowed on this address, or a file cannot be read or is not what it is
            said to be.
    """
    if settings.tls_certificate is None and settings.tls_key is None:
        _check_plain_text(settings)
        return None
    if settings.tls_certificate is None or settings.tls_key is None:
        raise ConfigurationError(f"{_PATH}.tls_certificate and tls_key: give both or neither")
    certificate = _read(settings.tls_certificate, "tls_certificate")
    key = _read(settings.tls_key, "tls_key")
    client_ca = None if settings.tls_client_ca is None else _read(settings.tls_client_ca, "tls_client_ca")
    _check_pem(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
    return grpc.ssl_server_credentials([(key, certificate)], client_ca, require_client_auth=client_ca is not None)


def _check_plain_text(settings: GatewaySettings) -> None:
    if settings.tls_client_ca is not None:
        raise ConfigurationError(f"{_PATH}.tls_client_ca: it needs tls_certificate and tls_key")
    host, _, _ = settings.listen.rpartition(":")
    if not settings.insecure and not is_loopback(host):
        raise ConfigurationError(
            f"{_PATH}.listen: {settings.listen} can be reached from other machines, in plain text: give tls_certificate"
            " and tls_key, or --insecure"
        )


def _check_pem(certificate: str, key: str, client_ca: str | None) -> None:
    # gRPC would only say that the address cannot be served on.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without `password` OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationError(
            f"{_PATH}.tls_certificate and tls_key: {certificate} and {key} are not a PEM certificate and its private"
            " key without a passphrase"
        ) from error
    try:
        context.load_verify_locations(client_ca or certificate)
    except ssl.SSLError as error:
        raise ConfigurationError(f"{_PATH}.tls_client_ca: {client_ca} is not a PEM file of certificates") from error


def _read(file: str, name: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{_PATH}.{name}: {file} cannot be read: {error.strerror}") from error
