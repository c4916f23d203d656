"""Callers: finds the principal of a call, from its bearer token or its client certificate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, TypeAlias

from provgate_gateway import errors
from provgate_gateway.access.roles import Role
from provgate_gateway.access.tokens import TokenLine, holder_of

Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]
AuthContext: TypeAlias = Mapping[str, Iterable[bytes]]

_BEARER: Final = "bearer"
# The names of a certificate, in the order in which they are looked up.
_CERTIFICATE_NAMES: Final = ("x509_subject_alternative_name", "x509_common_name")


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller. All tokens and certificates of one name belong to one principal.

    Attributes:
        name: the name, for limits and logs.
        role: what it may do.
    """

    name: str
    role: Role


ANONYMOUS: Final = Principal("anonymous", Role.ADMIN)
"""Every caller of a gateway without access control."""

_current: ContextVar[Principal] = ContextVar("principal", default=ANONYMOUS)


def current_principal() -> Principal:
    """Returns the principal of the call that the current task serves, or that started this task."""
    return _current.get()


def set_principal(principal: Principal) -> None:
    """Sets the principal of the call that the current task serves."""
    _current.set(principal)


class Callers:
    """Finds the principals of calls.

    Args:
        tokens: returns the lines of the valid tokens.
        certificates: the roles of client certificates, by name.
    """

    def __init__(self, tokens: Callable[[], list[TokenLine]], certificates: Mapping[str, Role]) -> None:
        self._tokens = tokens
        self._certificates = certificates

    def identify(self, metadata: Metadata, auth_context: Callable[[], AuthContext]) -> Principal:
        """Returns the holder of a call's token or, without a token, the first known name of its certificate.

        Args:
            metadata: the call's metadata.
            auth_context: returns what TLS knows of the peer; called only if it is needed.

        Raises:
            CallError: the caller is unknown. A wrong token fails the call even with a known certificate.
        """
        authorization = [value for key, value in metadata if key == "authorization"]
        if authorization:
            line = holder_of(_bearer_token(authorization), self._tokens())
            if line is None:
                raise errors.unauthenticated("the token is unknown")
            return Principal(line.name, line.role)
        if self._certificates:
            shown = auth_context()
            for raw_name in (each for kind in _CERTIFICATE_NAMES for each in shown.get(kind, ())):
                name = raw_name.decode(errors="replace")
                if name in self._certificates:
                    return Principal(name, self._certificates[name])
        raise errors.unauthenticated("the call has no token and no client certificate of a known name")


def _bearer_token(authorization: list[str | bytes]) -> str:
    scheme, _, token = str(authorization[0]).partition(" ")
    if len(authorization) > 1 or scheme.lower() != _BEARER:
        raise errors.unauthenticated("the metadata must have `authorization` once, as `Bearer TOKEN`")
    return token.strip()
