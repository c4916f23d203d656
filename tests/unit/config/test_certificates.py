"""When certificates expire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from provgate_runtime import ConfigurationError
from provgate_runtime.expiry import certificate_expiry


def test_the_first_certificate_of_a_chain_to_expire(tmp_path: Path) -> None:
    soon, later = (datetime.now(UTC).replace(microsecond=0) + timedelta(days=days) for days in (3, 30))
    authority = trustme.CA()
    file = tmp_path / "chain.pem"
    for expiries in ((soon,), (soon, later), (later, soon)):
        certificates = [authority.issue_cert("localhost", not_after=expiry) for expiry in expiries]
        file.write_bytes(b"".join(certificate.cert_chain_pems[0].bytes() for certificate in certificates))
        assert certificate_expiry(file) == certificate_expiry(str(file)) == soon


def test_what_has_no_certificate(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="none cannot be read: No such file"):
        certificate_expiry(tmp_path / "none")
    file = tmp_path / "junk"
    for content in (b"", b"junk", trustme.CA().issue_cert("localhost").private_key_pem.bytes()):
        file.write_bytes(content)
        with pytest.raises(ConfigurationError, match="junk is not a PEM file of certificates"):
            certificate_expiry(file)
