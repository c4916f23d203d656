"""The certificates of a connection to the broker."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from provgate_broker.errors import TlsFileError


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of a connection; what is None is left to the system's trust store, or not shown.

    Attributes:
        ca_file: the authorities that a broker's certificate must come from.
        cert_file: the chain that is shown to the broker.
        key_file: the private key of `cert_file`, without a passphrase.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def __bool__(self) -> bool:
        return any((self.ca_file, self.cert_file, self.key_file))

    def context(self) -> ssl.SSLContext:
        """Reads the files, and returns a context that checks the broker's certificate and its host name.

        Raises:
            TlsFileError: a file cannot be read or is not what it should be, or there is a certificate and no key. The
                text starts with the setting's name.
        """
        context = self._trusting()
        if self.cert_file is not None and self.key_file is not None:
            _show(context, self.cert_file, self.key_file)
        elif self.cert_file or self.key_file:
            raise TlsFileError("tls_cert_file and tls_key_file: give both or neither")
        return context

    def _trusting(self) -> ssl.SSLContext:
        if self.ca_file is None:
            return ssl.create_default_context()
        _check_readable(self.ca_file, "tls_ca_file")
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except ssl.SSLError as error:
            raise TlsFileError(f"tls_ca_file: {self.ca_file} is not a PEM file of certificates") from error


def _show(context: ssl.SSLContext, cert_file: str, key_file: str) -> None:
    _check_readable(cert_file, "tls_cert_file")
    _check_readable(key_file, "tls_key_file")
    try:
        # Without `password` OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(cert_file, key_file, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        raise TlsFileError(
            f"tls_cert_file and tls_key_file: {cert_file} and {key_file} are not a PEM certificate and its private key"
            " without a passphrase"
        ) from error


def _check_readable(file: str, name: str) -> None:
    # What OpenSSL says of a file that is not there does not name it.
    try:
        with Path(file).open("rb"):
            return
    except OSError as error:
        raise TlsFileError(f"{name}: {file} cannot be read: {error.strerror}") from error
