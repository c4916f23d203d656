"""PEM files of certificates and keys, loaded so that what is wrong with one is said with its name."""

from __future__ import annotations

import ssl
from pathlib import Path

from provgate_runtime.errors import ConfigurationError


def read_pem(file: str, setting: str) -> bytes:
    """Returns what a file holds.

    Args:
        file: its path.
        setting: what names it, for messages.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{setting}: {file} cannot be read: {error.strerror}") from error


def load_key_pair(context: ssl.SSLContext, certificate: str, key: str, settings: str) -> None:
    """Loads a certificate chain and its private key.

    Args:
        context: what to load them into.
        certificate: the file of the chain.
        key: the file of the key.
        settings: what names the two, for messages.

    Raises:
        ConfigurationError: they are not a PEM certificate and its private key, or the key has a passphrase.
    """
    try:
        # Without `password` OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{settings}: {certificate} and {key} are not a PEM certificate and its private key without a passphrase"
        ) from error


def load_authorities(context: ssl.SSLContext, file: str, setting: str) -> None:
    """Loads the certificates of authorities. Raises `ConfigurationError` where the file holds none."""
    try:
        context.load_verify_locations(file)
    except OSError as error:
        raise ConfigurationError(f"{setting}: {file} is not a PEM file of certificates") from error
