"""The certificates of a connection to the broker."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from provgate_runtime import ConfigurationError
from provgate_runtime.certificates import load_authorities, load_key_pair, read_pem


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
            ConfigurationError: a file cannot be read or is not what it should be, or there is a certificate and no key.
                The text starts with the setting's name.
        """
        context = self._trusting()
        if self.cert_file is not None and self.key_file is not None:
            read_pem(self.cert_file, "tls_cert_file")
            read_pem(self.key_file, "tls_key_file")
            load_key_pair(context, self.cert_file, self.key_file, "tls_cert_file and tls_key_file")
        elif self.cert_file or self.key_file:
            raise ConfigurationError("tls_cert_file and tls_key_file: give both or neither")
        return context

    def _trusting(self) -> ssl.SSLContext:
        if self.ca_file is None:
            return ssl.create_default_context()
        read_pem(self.ca_file, "tls_ca_file")
        # Of this protocol a context checks certificate and host name; it trusts nobody yet.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        load_authorities(context, self.ca_file, "tls_ca_file")
        return context
