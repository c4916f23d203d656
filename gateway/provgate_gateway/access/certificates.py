"""How the gateway serves: in plain text or with a certificate, which is read again when its files change.

gRPC asks for it at each handshake, on a thread of its own. Open connections keep the certificate of their handshake.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import datetime
from typing import Final, cast

import grpc

from provgate_gateway.access.watched_files import WatchedFiles
from provgate_gateway.settings import GatewaySettings
from provgate_runtime import ConfigurationError
from provgate_runtime.addresses import is_loopback
from provgate_runtime.certificates import certificate_expiry, load_authorities, load_key_pair, read_pem

_PATH: Final = "provenance.gateway"
_PORT_MAX: Final = 65535


def host_and_port(listen: str) -> tuple[str, int]:
    """Returns the two parts of an address. The host of an IPv6 address keeps its brackets.

    Raises:
        ConfigurationError: the port is too large. gRPC would take another one.
    """
    host, _, port = listen.rpartition(":")
    if int(port) > _PORT_MAX:
        raise ConfigurationError(f"{_PATH}.listen: a port is at most {_PORT_MAX}, not {port}")
    return host, int(port)


def server_credentials(settings: GatewaySettings) -> grpc.ServerCredentials | None:
    """Returns the credentials to serve with; None for plain text.

    Raises:
        ConfigurationError: the address is invalid, plain text is not allowed on it, or a TLS file cannot be read or has
            the wrong content.
    """
    host, _ = host_and_port(settings.listen)
    certificate, key, client_ca = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
    if certificate is not None and key is not None:
        return _reloaded_credentials(certificate, key, client_ca)
    if certificate is not None or key is not None:
        raise ConfigurationError(f"{_PATH}.tls_certificate and tls_key: give both or neither")
    if client_ca is not None:
        raise ConfigurationError(f"{_PATH}.tls_client_ca: it needs tls_certificate and tls_key")
    if not settings.insecure and not is_loopback(host):
        raise ConfigurationError(
            f"{_PATH}.listen: {settings.listen} can be reached from other machines, in plain text: give tls_certificate"
            " and tls_key, or --insecure"
        )
    return None


def _reloaded_credentials(certificate: str, key: str, client_ca: str | None) -> grpc.ServerCredentials:
    """Returns credentials that follow PEM files. Invalid new files are logged, and the old ones stay in force.

    Args:
        certificate: the file of the certificate and its chain.
        key: the file of its private key.
        client_ca: the file of the authorities whose client certificates are required; None requires none.

    Raises:
        ConfigurationError: a file cannot be read now, or has the wrong content.
    """

    def read() -> grpc.ServerCertificateConfiguration:
        chain = read_pem(certificate, f"{_PATH}.tls_certificate")
        private_key = read_pem(key, f"{_PATH}.tls_key")
        authorities = None if client_ca is None else read_pem(client_ca, f"{_PATH}.tls_client_ca")
        # gRPC would report a wrong file only as a failed bind or handshake.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        load_key_pair(context, certificate, key, f"{_PATH}.tls_certificate and tls_key")
        if client_ca is not None:
            load_authorities(context, client_ca, f"{_PATH}.tls_client_ca")
        return grpc.ssl_server_certificate_configuration([(private_key, chain)], authorities)

    watched = WatchedFiles([file for file in (certificate, key, client_ca) if file is not None], read)
    served = watched.current()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal served
        current = watched.current()
        if current is served:
            return None
        served = current
        return current

    return grpc.dynamic_ssl_server_credentials(
        served,
        # The stubs do not allow None, which keeps the certificate.
        cast("Callable[[], grpc.ServerCertificateConfiguration]", changed),
        require_client_authentication=client_ca is not None,
    )


def certificate_problem(file: str | None, now: datetime) -> str | None:
    """Returns what is wrong with the certificate in a file; None if it is valid, or `file` is None."""
    if file is None:
        return None
    try:
        expiry = certificate_expiry(file)
    except ConfigurationError as error:
        return error.message
    return f"{file} has expired at {expiry:%Y-%m-%d %H:%M} UTC" if expiry <= now else None
