"""The certificate that the gateway serves with, read again when its files change.

gRPC asks for it at each handshake, on a thread of its own. Connections that are open keep what they were made with.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, cast

import grpc

from provgate_config import ConfigurationError
from provgate_gateway.access.watched_files import WatchedFiles

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
    certificate = _read(files.certificate, "tls_certificate")
    key = _read(files.key, "tls_key")
    client_ca = None if files.client_ca is None else _read(files.client_ca, "tls_client_ca")
    _check_pem(files)
    return grpc.ssl_server_certificate_configuration([(key, certificate)], client_ca)


def _check_pem(files: TlsFiles) -> None:
    # gRPC would only say that the address cannot be served on, or that a handshake failed.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without `password` OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(files.certificate, files.key, password=lambda: "")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{_PATH}.tls_certificate and tls_key: {files.certificate} and {files.key} are not a PEM certificate and"
            " its private key without a passphrase"
        ) from error
    try:
        context.load_verify_locations(files.client_ca or files.certificate)
    except OSError as error:
        message = f"{_PATH}.tls_client_ca: {files.client_ca} is not a PEM file of certificates"
        raise ConfigurationError(message) from error


def _read(file: str, name: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{_PATH}.{name}: {file} cannot be read: {error.strerror}") from error
