"""The address to serve on, and with which credentials."""

from __future__ import annotations

import errno
import socket
from typing import Final

import grpc

from provgate_config import ConfigurationError
from provgate_config.loopback import is_loopback
from provgate_gateway.access.certificates import TlsFiles, reloaded_credentials
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
    return reloaded_credentials(TlsFiles(settings.tls_certificate, settings.tls_key, settings.tls_client_ca))


def _check_plain_text(settings: GatewaySettings, host: str) -> None:
    if settings.tls_client_ca is not None:
        raise ConfigurationError(f"{_PATH}.tls_client_ca: it needs tls_certificate and tls_key")
    if not settings.insecure and not is_loopback(host):
        raise ConfigurationError(
            f"{_PATH}.listen: {settings.listen} can be reached from other machines, in plain text: give tls_certificate"
            " and tls_key, or --insecure"
        )
