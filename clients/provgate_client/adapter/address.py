"""The address of the gateway."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from provgate_config.loopback import is_loopback

# Scheme -> whether it asks for TLS. "" is a bare host:port.
_SCHEMES: Final = {"": False, "grpc": False, "http": False, "grpcs": True, "https": True}


@dataclass(frozen=True, slots=True)
class Address:
    """Where the gateway listens.

    Attributes:
        target: host:port, as gRPC takes it.
        secure: whether the address asked for TLS by its scheme.
    """

    target: str
    secure: bool

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return is_loopback(self.target.rpartition(":")[0])


def parse_address(url: str) -> Address:
    """Returns the address that `url` names: host:port, alone or behind grpc://, http://, grpcs:// or https://.

    Raises:
        ValueError: it is none; the text does not repeat it, since it may hold a password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    if scheme.lower() not in _SCHEMES:
        raise ValueError("url is host:port, with grpc://, http://, grpcs:// or https:// before it at most")
    parts = urlsplit(f"//{rest}")
    if "@" in rest or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("url is host:port without user, path or query")
    if not parts.hostname or parts.port is None or any(letter.isspace() for letter in rest):
        raise ValueError("url is host:port, for example localhost:50051 or [::1]:50051")
    return Address(parts.netloc, _SCHEMES[scheme.lower()])
