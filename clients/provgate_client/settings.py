"""The settings of the adapter: the section `provenance.storage` of the configuration, for `cls: grpc`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import urlsplit

from msgspec import Meta

from provgate_runtime import Settings
from provgate_runtime.addresses import is_loopback

# Scheme -> whether it means TLS. "" is a bare host:port.
_SCHEMES: Final = {"": False, "grpc": False, "http": False, "grpcs": True, "https": True}


@dataclass(frozen=True, slots=True)
class Address:
    """The address of the gateway.

    Attributes:
        target: host:port, as gRPC needs it.
        secure: whether the scheme means TLS.
    """

    target: str
    secure: bool

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.target.rpartition(":")[0])


def parse_address(url: str) -> Address:
    """Returns the address in `url`: host:port, with or without grpc://, http://, grpcs:// or https:// before it.

    Raises:
        ValueError: it is not valid. The text does not repeat it, because it may have a password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    if scheme.lower() not in _SCHEMES:
        raise ValueError("url must be host:port, with nothing or grpc://, http://, grpcs:// or https:// before it")
    parts = urlsplit(f"//{rest}")
    if "@" in rest or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("url must be host:port without user, path or query")
    if not parts.hostname or parts.port is None or any(letter.isspace() for letter in rest):
        raise ValueError("url must be host:port, for example localhost:50051 or [::1]:50051")
    return Address(parts.netloc, _SCHEMES[scheme.lower()])


SECTION: Final = "storage"
SECTION_PATH: Final = "provenance.storage"

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class GrpcSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach the gateway, and how long to wait for it."""

    url: Annotated[str, Meta(description="The gateway: host:port. With grpcs:// or https:// before it: over TLS.")] = (
        "localhost:50051"
    )

    tls: Annotated[bool, Meta(description="Use TLS, and verify the gateway's certificate.")] = False

    tls_ca_file: Annotated[
        str | None,
        Meta(description="PEM file of the authorities to trust, instead of gRPC's own. Implies TLS."),
    ] = None

    tls_cert_file: Annotated[
        str | None, Meta(description="PEM file of the client's certificate chain. Implies TLS.")
    ] = None

    tls_key_file: Annotated[str | None, Meta(description="PEM file of the client's private key.")] = None

    token: Annotated[
        str | None,
        Meta(
            description="The bearer token of the caller, if the gateway requires one. Needs TLS, unless only this "
            "machine can reach the address."
        ),
    ] = None

    connect_timeout_s: Annotated[
        float, Meta(gt=0, description="Seconds to wait for the connection when the storage opens.")
    ] = 10.0

    write_timeout_s: Annotated[
        float | None, Meta(description="Seconds until the deadline of each call that writes. By default there is none.")
    ] = None

    read_timeout_s: Annotated[float, Meta(gt=0, description="Seconds until the deadline of a read of one result.")] = (
        60.0
    )

    stream_timeout_s: Annotated[
        float | None, Meta(description="Seconds until the deadline of a streamed read. By default there is none.")
    ] = None

    retry_time_s: Annotated[
        float,
        Meta(ge=0, description="Seconds without progress after which a call is not repeated any more."),
    ] = 60.0

    keepalive_s: Annotated[
        float,
        Meta(
            ge=10,
            description="Seconds without traffic during a call after which the connection is probed.",
            extra={"option": False},
        ),
    ] = 60.0

    message_entries: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Entries in a message; fewer if their paths are long.",
            extra={"option": False},
        ),
    ] = 30_000

    checkpoint_entries: Annotated[
        int,
        Meta(
            ge=1,
            description="After this many entries a write waits until all are acked. No more than that is sent twice.",
            extra={"option": False},
        ),
    ] = 500_000

    raise_on_failure: Annotated[
        bool,
        Meta(
            description="Raise an error, instead of returning False, if a write may be tried again.",
            extra={"option": False},
        ),
    ] = False

    def __post_init__(self) -> None:
        parse_address(self.url)
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file must be given together")
        self._check_token()
        for name in ("write_timeout_s", "stream_timeout_s"):
            timeout_s = getattr(self, name)
            if timeout_s is not None and timeout_s <= 0:
                raise ValueError(f"{name} must be more than 0")

    def __repr__(self) -> str:
        """Returns the settings without the token, which must not be in logs and tracebacks."""
        shown = (
            f"{name}={'...' if name == 'token' and self.token else repr(getattr(self, name))}"
            for name in self.__struct_fields__
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def _check_token(self) -> None:
        if self.token is None:
            return
        # If gRPC refuses a value, its error quotes it.
        if not _TOKEN.fullmatch(self.token):
            raise ValueError("token must be letters, digits and -._~+/, with = only at its end (RFC 6750)")
        if not self.secure and not self.address.is_local:
            raise ValueError("token would be sent in plain text to another machine: set tls, or a grpcs:// url")

    @property
    def address(self) -> Address:
        """The address of the gateway."""
        return parse_address(self.url)

    @property
    def secure(self) -> bool:
        """Whether the channel is encrypted."""
        return self.tls or self.address.secure or self.tls_ca_file is not None or self.tls_cert_file is not None
