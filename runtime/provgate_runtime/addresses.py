"""Settings that are an address, and which addresses only this machine reaches."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

OFF: Final = "off"
"""The value of an address setting that turns the listener off."""

_ADDRESS: Final = r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+):[0-9]{1,5}"
_ANY_HOST: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104  # to be replaced

Address: TypeAlias = Annotated[str, Meta(pattern=f"^{_ADDRESS}$")]
"""Host and port; an IPv6 address in brackets."""

AddressOrOff: TypeAlias = Annotated[str, Meta(pattern=f"^({OFF}|{_ADDRESS})$")]
"""An address or `OFF`. A field of this type needs `extra={"off": True}`, because YAML reads `off` as false."""


def is_loopback(host: str) -> bool:
    """Returns whether only this machine reaches a host name or address. An IPv6 address may have brackets."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def local_address(listen: str) -> str:
    """Returns the address at which this machine reaches a program that listens on `listen`."""
    host, _, port = listen.rpartition(":")
    return f"{_ANY_HOST.get(host, host)}:{port}"
