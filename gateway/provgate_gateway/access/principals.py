"""Who calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, TypeAlias

from provgate_gateway import errors
from provgate_gateway.access.roles import Role
from provgate_gateway.access.tokens import TokenLine, holder_of

Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]
AuthContext: TypeAlias = Mapping[str, Iterable[bytes]]

_BEARER: Final = "bearer"
# In the order in which they count.
_NAMES_OF_CERTIFICATE: Final = ("x509_subject_alternative_name", "x509_common_name")


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller. Tokens and certificates of one name are of one principal.

    Attributes:
        name: for limits and logs.
        role: what it may do.
    """

    name: str
    role: Role


ANONYMOUS: Final = Principal("anonymous", Role.ADMIN)
"""Everybody, where the gateway does not ask."""

_current: ContextVar[Principal] = ContextVar("principal", default=ANONYMOUS)


def current_principal() -> Principal:
    """Returns who makes the call that this is in, also in tasks that the call started."""
    return _current.get()


def set_principal(principal: Principal) -> None:
    """Says who makes the call of the task that runs."""
    _current.set(principal)


class Callers:
    """Tells who calls.

    Args:
        tokens: returns the lines of the tokens that count now.
        certificates: the roles of the names of client certificates.
    """

    def __init__(self, tokens: Callable[[], list[TokenLine]], certificates: Mapping[str, Role]) -> None:
        self._tokens = tokens
        self._certificates = certificates

    def identify(self, metadata: Metadata, auth_context: Callable[[], AuthContext]) -> Principal:
        """Returns who makes a call: the holder of its token or, without one, the first known name of its certificate.

        Args:
            metadata: of the call.
            auth_context: what TLS knows of the peer; asked for where it is needed.

        Raises:
            CallError: nobody who is known. A wrong token is one even beside a certificate: who shows it means it.
        """
        shown = [value for key, value in metadata if key == "authorization"]
        if shown:
            return self._holder(_token_of(shown))
        for name in _names(auth_context()) if self._certificates else ():
            if name in self._certificates:
                return Principal(name, self._certificates[name])
        raise errors.unauthenticated("the call has no token, and no client certificate whose name is known")

    def _holder(self, token: str) -> Principal:
        line = holder_of(token, self._tokens())
        if line is None:
            raise errors.unauthenticated("the token is not known")
        return Principal(line.name, line.role)


def _token_of(shown: list[str | bytes]) -> str:
    scheme, _, token = str(shown[0]).partition(" ")
    if len(shown) > 1 or scheme.lower() != _BEARER:
        raise errors.unauthenticated("the metadata `authorization` is there once, as `Bearer TOKEN`")
    return token.strip()


def _names(auth_context: AuthContext) -> Iterator[str]:
    for kind in _NAMES_OF_CERTIFICATE:
        for name in auth_context.get(kind, ()):
            yield name.decode(errors="replace")
