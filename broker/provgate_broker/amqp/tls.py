"""The TLS context of a connection to the broker, from PEM files."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from provgate_runtime import ConfigurationError
from provgate_runtime.certificates import load_authorities, load_key_pair, read_pem


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The PEM files of a connection; each may be None.

    Attributes:
        ca_file: the authorities that must have issued the broker's certificate; None for the system's trust store.
        cert_file: the client certificate with its chain.
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
            ConfigurationError: a file cannot be read or has the wrong content, or one of certificate and key is
                missing. The text starts with the name of the setting.
        """
        if self.ca_file is None:
            context = ssl.create_default_context()
        else:
            read_pem(self.ca_file, "tls_ca_file")
            # This protocol checks certificate and host name, and trusts no authority by itself.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            load_authorities(context, self.ca_file, "tls_ca_file")
        if self.cert_file is not None and self.key_file is not None:
            read_pem(self.cert_file, "tls_cert_file")
            read_pem(self.key_file, "tls_key_file")
            load_key_pair(context, self.cert_file, self.key_file, "tls_cert_file and tls_key_file")
        elif self.cert_file or self.key_file:
            raise ConfigurationError("tls_cert_file and tls_key_file: give both or neither")
        return context
