"""Credentials of callers and programs: tokens, and certificates of authorities that are made for a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import trustme

from provgate_gateway.access.roles import Role
from provgate_gateway.access.tokens import TokenLine, digest_of, new_token
from provgate_stack.processes.process import LOOPBACK

# The hosts of every certificate: tests reach servers by address.
_HOSTS: Final = (LOOPBACK, "localhost")


class PemFiles(NamedTuple):
    """One certificate.

    Attributes:
        certificate: the certificate chain.
        key: the private key.
        both: key and chain in one file.
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
        """Issues a certificate for a name and hosts, by default 127.0.0.1; a later one of the same name replaces it."""
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
    """Returns a new token, after its line was passed to `add`."""
    token = new_token()
    add(f"{TokenLine(name, role, digest_of(token))}\n")
    return token
