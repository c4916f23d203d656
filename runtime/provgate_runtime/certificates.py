"""PEM files of certificates and keys: read, loaded into a TLS context, checked for expiry. Errors name the file."""

from __future__ import annotations

import ssl
from datetime import datetime
from pathlib import Path

from provgate_runtime.settings import ConfigurationError


def read_pem(file: str, setting: str) -> bytes:
    """Returns the content of a file. `setting` names it in messages.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{setting}: {file} cannot be read: {error.strerror}") from error


def load_key_pair(context: ssl.SSLContext, certificate: str, key: str, settings: str) -> None:
    """Loads a certificate chain and its private key from two files. `settings` names them in messages.

    Raises:
        ConfigurationError: they are not a PEM certificate and its private key, or the key has a passphrase.
    """
    try:
        # Without `password` OpenSSL asks the terminal for the passphrase of an encrypted key.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{settings}: {certificate} and {key} are not a PEM certificate and its private key without a passphrase"
        ) from error


def load_authorities(context: ssl.SSLContext, file: str, setting: str) -> None:
    """Loads the certificates of authorities. Raises `ConfigurationError` if the file holds none."""
    try:
        context.load_verify_locations(file)
    except OSError as error:
        raise ConfigurationError(f"{setting}: {file} is not a PEM file of certificates") from error


def certificate_expiry(pem_file: str | Path) -> datetime:
    """Returns the time, in UTC, at which the first certificate of a chain expires.

    Raises:
        ConfigurationError: the file cannot be read, or holds no certificate.
    """
    # The client is installed without this library.
    from cryptography import x509

    try:
        chain = x509.load_pem_x509_certificates(Path(pem_file).read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{pem_file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{pem_file} is not a PEM file of certificates") from error
    return min(certificate.not_valid_after_utc for certificate in chain)
