"""PEM files: expiry, and errors that name the file."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from provgate_runtime import ConfigurationError
from provgate_runtime.certificates import certificate_expiry, load_authorities, load_key_pair, read_pem


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


def test_files_that_are_no_certificates_and_keys_are_named(tmp_path: Path) -> None:
    context = ssl.create_default_context()
    issued = trustme.CA().issue_cert("localhost")
    certificate, key, junk = (str(tmp_path / name) for name in ("cert.pem", "key.pem", "junk"))
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    Path(junk).write_bytes(b"junk")
    load_key_pair(context, certificate, key, "a.setting")
    load_authorities(context, certificate, "a.setting")
    assert read_pem(junk, "a.setting") == b"junk"
    for wrong in (junk, str(tmp_path / "none"), certificate):
        with pytest.raises(ConfigurationError, match=r"^a\.setting: .* are not a PEM certificate and its private key"):
            load_key_pair(context, certificate, wrong, "a.setting")
    with pytest.raises(ConfigurationError, match=r"^a\.setting: .*junk is not a PEM file of certificates"):
        load_authorities(context, junk, "a.setting")
    with pytest.raises(ConfigurationError, match=r"^a\.setting: .*none cannot be read: No such file"):
        read_pem(str(tmp_path / "none"), "a.setting")
