"""The certificate that the gateway serves with, read again when its files change.

gRPC asks for it at each handshake, on a thread of its own. Connections that are open keep what they were made with.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, cast

import grpc

from provgate_gateway.access.tokens import WatchedFiles
from provgate_runtime.certificates import load_authorities, load_key_pair, read_pem

_PATH: Final = "provenance.gateway"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files.

    Attributes:
        certificate: the chain to serve with.
        key: its private key.
        client_ca: the authorities whose client certificates are required; None where none are.
    """

    certificate: str
    key: str
    client_ca: str | None = None


def reloaded_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Returns credentials that follow the files: a new set that is wrong is logged, and the old one stays.

    Raises:
        ConfigurationError: a file cannot be read, or is not what it is said to be, now.
    """
    return _Certificates(files).credentials()


class _Certificates:
    def __init__(self, files: TlsFiles) -> None:
        paths = [file for file in (files.certificate, files.key, files.client_ca) if file is not None]
        self._requires_client = files.client_ca is not None
        self._watched = WatchedFiles(paths, partial(_configuration, files))
        self._given = self._watched.current()

    def credentials(self) -> grpc.ServerCredentials:
        # The type of the stubs leaves out that None is an answer too.
        changed = cast("Callable[[], grpc.ServerCertificateConfiguration]", self._changed)
        return grpc.dynamic_ssl_server_credentials(
            self._given, changed, require_client_authentication=self._requires_client
        )

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns what to serve with from now on; None for the same as before."""
        current = self._watched.current()
        if current is self._given:
            return None
        self._given = current
        return current


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    certificate = read_pem(files.certificate, f"{_PATH}.tls_certificate")
    key = read_pem(files.key, f"{_PATH}.tls_key")
    client_ca = None if files.client_ca is None else read_pem(files.client_ca, f"{_PATH}.tls_client_ca")
    _check(files)
    return grpc.ssl_server_certificate_configuration([(key, certificate)], client_ca)


def _check(files: TlsFiles) -> None:
    # gRPC would only say that the address cannot be served on, or that a handshake failed.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_key_pair(context, files.certificate, files.key, f"{_PATH}.tls_certificate and tls_key")
    if files.client_ca is not None:
        load_authorities(context, files.client_ca, f"{_PATH}.tls_client_ca")
