"""The section `provenance.storage` of the configuration, for `cls: grpc`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import urlsplit

from msgspec import Meta

from provgate_runtime import Settings
from provgate_runtime.addresses import is_loopback

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


SECTION: Final = "storage"
SECTION_PATH: Final = "provenance.storage"

_Seconds = Annotated[float, Meta(gt=0)]
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class GrpcSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach the gateway, and how patient to be with it."""

    url: Annotated[
        str,
        Meta(
            description="The gateway: host:port, behind grpc:// or http:// if you like; grpcs:// or https:// for TLS."
        ),
    ] = "localhost:50051"

    tls: Annotated[bool, Meta(description="Encrypt, and check the gateway's certificate.")] = False

    tls_ca_file: Annotated[
        str | None,
        Meta(description="PEM file of the authorities to trust instead of those that come with gRPC. Implies TLS."),
    ] = None

    tls_cert_file: Annotated[
        str | None, Meta(description="PEM file of the client's certificate chain. Implies TLS, needs the key.")
    ] = None

    tls_key_file: Annotated[str | None, Meta(description="PEM file of the client's private key.")] = None

    token: Annotated[
        str | None,
        Meta(
            description="The bearer token that says who calls, for a gateway that asks for one. Over TLS, or to an "
            "address that only this machine reaches."
        ),
    ] = None

    connect_timeout_s: Annotated[
        float, Meta(gt=0, description="Seconds to wait for the connection when the storage is opened.")
    ] = 10.0

    write_timeout_s: Annotated[
        float | None, Meta(description="Seconds until the deadline of each call that writes; none where not given.")
    ] = None

    read_timeout_s: Annotated[float, Meta(gt=0, description="Seconds until the deadline of a read of one result.")] = (
        60.0
    )

    stream_timeout_s: Annotated[
        float | None, Meta(description="Seconds until the deadline of a streamed read; none where not given.")
    ] = None

    retry_time_s: Annotated[
        float,
        Meta(
            ge=0, description="Seconds without progress for which a call is repeated while the gateway is away or busy."
        ),
    ] = 60.0

    keepalive_s: Annotated[
        float,
        Meta(
            ge=10,
            description="Seconds of silence during a call after which the connection is probed.",
            extra={"option": False},
        ),
    ] = 60.0

    message_entries: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Entries in a message, fewer where their paths are long.",
            extra={"option": False},
        ),
    ] = 30_000

    checkpoint_entries: Annotated[
        int,
        Meta(
            ge=1,
            description="After so many entries a write waits until all are acked: more than that is never sent twice.",
            extra={"option": False},
        ),
    ] = 500_000

    raise_on_failure: Annotated[
        bool,
        Meta(
            description="Raise where a write would return False because it may be tried again.", extra={"option": False}
        ),
    ] = False

    def __post_init__(self) -> None:
        parse_address(self.url)
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file are given together")
        self._check_token()
        for name in ("write_timeout_s", "stream_timeout_s"):
            timeout_s = getattr(self, name)
            if timeout_s is not None and timeout_s <= 0:
                raise ValueError(f"{name} is more than 0")

    def __repr__(self) -> str:
        """Returns the settings without the token: it is not for logs and tracebacks."""
        known = ((name, getattr(self, name)) for name in self.__struct_fields__)
        shown = (f"{name}={_shown(name, value)}" for name, value in known)
        return f"{type(self).__name__}({', '.join(shown)})"

    def _check_token(self) -> None:
        if self.token is None:
            return
        # gRPC would quote a value that it refuses.
        if not _TOKEN.fullmatch(self.token):
            raise ValueError("token is letters, digits and -._~+/ with = at its end at most (RFC 6750)")
        if not self.secure and not self.address.is_local:
            raise ValueError("token would be sent in plain text to another machine: set tls, or a grpcs:// url")

    @property
    def address(self) -> Address:
        """Where the gateway is."""
        return parse_address(self.url)

    @property
    def secure(self) -> bool:
        """Whether the channel is encrypted."""
        return self.tls or self.address.secure or self.tls_ca_file is not None or self.tls_cert_file is not None


def _shown(name: str, value: object) -> str:
    return "..." if name == "token" and value is not None else repr(value)
