"""The versions of what is installed."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from provgate_operations.doctor.findings import Finding, ok

_PACKAGES: Final = (
    "provgate",
    "grpcio",
    "protobuf",
    "pika",
    "msgpack",
    "msgspec",
    "prometheus-client",
    "psycopg2-binary",
    "pymongo",
    "pygit2",
)


def version_findings() -> Iterator[Finding]:
    """Yields what is installed beside this program; what is not is left out: the extras are optional."""
    installed = [f"Python {platform.python_version()}", *filter(None, map(_installed, _PACKAGES))]
    yield ok("versions", ", ".join(installed))


def _installed(package: str) -> str | None:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return None
