"""The certificates of a private server that takes encrypted connections alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM files of a server that encrypts, and that takes only clients with a certificate.

    Attributes:
        certificate, key: what the server shows; for 127.0.0.1.
        ca: the authority that the certificates of server and clients come from.
        client: key and chain of what the launcher itself shows, in one file that nobody else may read. PostgreSQL wants
            the name of its user, `provgate`, as the common name.
    """

    certificate: Path
    key: Path
    ca: Path
    client: Path
