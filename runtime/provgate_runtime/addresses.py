"""Settings that are an address."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Final, TypeAlias

from msgspec import Meta


def is_loopback(host: str) -> bool:
    """Returns whether only this machine reaches a host name or address; one of IPv6 may have brackets."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


OFF: Final = "off"
"""What is written for an address that is not wanted."""

_ADDRESS: Final = r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+):[0-9]{1,5}"

Address: TypeAlias = Annotated[str, Meta(pattern=f"^{_ADDRESS}$")]
"""Host and port; an IPv6 address in brackets."""

AddressOrOff: TypeAlias = Annotated[str, Meta(pattern=f"^({OFF}|{_ADDRESS})$")]
"""The same, or `OFF`. A field of this type says so (`extra={"off": True}`), since YAML reads `off` as false."""

_ANY_HOST: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104  # to be replaced


def local_address(listen: str) -> str:
    """Returns where a program that listens on an address is reached from its own machine."""
    host, _, port = listen.rpartition(":")
    return f"{_ANY_HOST.get(host, host)}:{port}"
