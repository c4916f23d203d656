"""When certificates expire."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from provgate_runtime.errors import ConfigurationError


def certificate_expiry(pem_file: str | Path) -> datetime:
    """Returns the moment, in UTC, after which the chain in a PEM file is not valid any more: its first to expire.

    Raises:
        ConfigurationError: the file cannot be read, or holds no certificate.
    """
    # Only who serves with certificates, or looks at them, needs it: the client comes without.
    from cryptography import x509

    try:
        chain = x509.load_pem_x509_certificates(Path(pem_file).read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{pem_file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{pem_file} is not a PEM file of certificates") from error
    return min(certificate.not_valid_after_utc for certificate in chain)
