"""Settings that are an address."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

from msgspec import Meta

OFF: Final = "off"
"""What is written for an address that is not wanted."""

_ADDRESS: Final = r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+):[0-9]{1,5}"

Address: TypeAlias = Annotated[str, Meta(pattern=f"^{_ADDRESS}$")]
"""Host and port; an IPv6 address in brackets."""

AddressOrOff: TypeAlias = Annotated[str, Meta(pattern=f"^({OFF}|{_ADDRESS})$")]
"""The same, or `OFF`. A field of this type says so (`extra={"off": True}`), since YAML reads `off` as false."""
