"""What callers and programs prove themselves with: certificates, of authorities made for a test, and tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import trustme

from provgate_gateway.access.roles import Role
from provgate_gateway.access.tokens import TokenLine, digest_of, new_token
from provgate_stack.processes.process import LOOPBACK

# What every certificate is for: servers of tests are reached by address.
_HOSTS: Final = (LOOPBACK, "localhost")


class PemFiles(NamedTuple):
    """One certificate.

    Attributes:
        certificate: its chain.
        key: its private key.
        both: the two in one file.
    """

    certificate: Path
    key: Path
    both: Path


class Authority:
    """An authority whose certificates are files below a directory. Not thread-safe."""

    def __init__(self, directory: Path, name: str) -> None:
        self._authority = trustme.CA(organization_name=name)
        self._directory = directory / name
        self._directory.mkdir()
        self.ca = self._directory / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.ca))

    def issue(self, common_name: str, *hosts: str) -> PemFiles:
        """Makes a certificate for a name, at 127.0.0.1 unless `hosts` say otherwise; a later one replaces it."""
        made = self._authority.issue_cert(*(hosts or _HOSTS), common_name=common_name)
        certificate, key, both = (self._directory / f"{common_name}.{end}" for end in ("crt", "key", "pem"))
        for path in (key, both):
            # libpq refuses a key that others may read.
            path.touch(mode=0o600)
        certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        key.write_bytes(made.private_key_pem.bytes())
        both.write_bytes(made.private_key_and_cert_chain_pem.bytes())
        return PemFiles(certificate, key, both)


def issue_token(add: Callable[[str], object], name: str, role: Role) -> str:
    """Returns a new token, whose line was given to `add`."""
    token = new_token()
    add(f"{TokenLine(name, role, digest_of(token))}\n")
    return token
