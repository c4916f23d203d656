"""The address to serve on, and with which credentials."""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
from pathlib import Path
from typing import Final

import grpc

from provgate_config import ConfigurationError
from provgate_gateway.settings import GatewaySettings

_PATH: Final = "provenance.gateway"
_PORT_MAX: Final = 65535


def host_and_port(listen: str) -> tuple[str, int]:
    """Returns the two parts of an address; the host of an IPv6 address keeps its brackets.

    Raises:
        ConfigurationError: there is no such port: gRPC would take another one.
    """
    host, _, port = listen.rpartition(":")
    if int(port) > _PORT_MAX:
        raise ConfigurationError(f"{_PATH}.listen: a port is at most {_PORT_MAX}, not {port}")
    return host, int(port)


def is_taken(host: str, port: int) -> bool:
    """Returns whether somebody serves on a port at any of a host's addresses; gRPC is content with one that is free."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror:
        return False
    return any(_is_in_use(family, address) for family, _, _, _, address in found)


def _is_in_use(family: socket.AddressFamily, address: tuple[object, ...]) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


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
        ConfigurationError: the address is none, plain text is not allowed on it, or a file cannot be read or is not
            what it is said to be.
    """
    host, _ = host_and_port(settings.listen)
    if settings.tls_certificate is None and settings.tls_key is None:
        _check_plain_text(settings, host)
        return None
    if settings.tls_certificate is None or settings.tls_key is None:
        raise ConfigurationError(f"{_PATH}.tls_certificate and tls_key: give both or neither")
    certificate = _read(settings.tls_certificate, "tls_certificate")
    key = _read(settings.tls_key, "tls_key")
    client_ca = None if settings.tls_client_ca is None else _read(settings.tls_client_ca, "tls_client_ca")
    _check_pem(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
    return grpc.ssl_server_credentials([(key, certificate)], client_ca, require_client_auth=client_ca is not None)


def _check_plain_text(settings: GatewaySettings, host: str) -> None:
    if settings.tls_client_ca is not None:
        raise ConfigurationError(f"{_PATH}.tls_client_ca: it needs tls_certificate and tls_key")
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
