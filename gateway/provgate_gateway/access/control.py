"""Access control as the settings ask for it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import grpc

from provgate_gateway import errors
from provgate_gateway.access.limits import PrincipalLimits
from provgate_gateway.access.principals import Callers, Principal, set_principal
from provgate_gateway.access.roles import Role, needed_role
from provgate_gateway.access.tokens import TokenLine, WatchedFiles, read_token_file
from provgate_gateway.errors import CallError
from provgate_gateway.rpc.handler_wrappers import at_end_of_call, entered
from provgate_gateway.settings import AccessSettings
from provgate_runtime import ConfigurationError

logger = logging.getLogger(__name__)

Q = TypeVar("Q")
R = TypeVar("R")


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Lets those in who may call, before anything of their request is read or decoded. Belongs to one event loop.

    What the gateway does not serve stays UNIMPLEMENTED for everybody.

    Args:
        callers: tells who calls.
        limits: of each principal.
    """

    def __init__(self, callers: Callers, limits: PrincipalLimits) -> None:
        self._callers = callers
        self._limits = limits

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Q, R] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Q, R] | None:
        """Wraps the handler of an RPC that is not for everybody."""
        handler = await continuation(handler_call_details)
        needed = needed_role(handler_call_details.method)
        if handler is None or needed is None:
            return handler
        guarded: grpc.RpcMethodHandler[Q, R] = entered(handler, lambda context: self._let_in(context, needed))
        return guarded

    async def _let_in(self, context: Any, needed: Role) -> None:
        """Says who makes the call from here on, or ends it."""
        try:
            principal = self._callers.identify(context.invocation_metadata(), context.auth_context)
            _check_role(principal, needed)
            at_end_of_call(self._limits.begin_call(principal))
        except CallError as error:
            # Strangers can cause as many as they like: metrics count them.
            logger.debug(
                "refused a call of %s: %s",
                context.peer(),
                error.message,
                extra={"action": "call.refuse", "peer": context.peer(), "reason": error.message},
            )
            await context.abort_with_status(error.status())
        else:
            set_principal(principal)


def _check_role(principal: Principal, needed: Role) -> None:
    if not principal.role.includes(needed):
        raise errors.permission_denied(
            f"{principal.name} has the role {principal.role.value}, and the call needs the role {needed.value}"
        )


_PATH: Final = "provenance.gateway"


@dataclass(frozen=True)
class AccessControl:
    """Access control that is on.

    Attributes:
        interceptor: decides about each call.
        limits: of each principal, also for what is written.
    """

    interceptor: AccessInterceptor
    limits: PrincipalLimits


def access_control(settings: AccessSettings, *, client_ca: bool, private: bool) -> AccessControl | None:
    """Returns the access control that settings ask for; None for none.

    Args:
        settings: who may call.
        client_ca: whether client certificates are required.
        private: whether nobody can read what passes on the wire.

    Raises:
        ConfigurationError: the file of tokens is missing or wrong, or there can be no certificates.
    """
    if not settings.is_controlled:
        return None
    if settings.certificates and not client_ca:
        raise ConfigurationError(f"{_PATH}.access.certificates: they need tls_client_ca, which asks clients for them")
    if settings.tokens_file is not None and not private:
        logger.warning(
            "tokens are sent in plain text, to an address that other machines reach",
            extra={"action": "access.plaintext"},
        )
    limits = PrincipalLimits(settings.limits)
    callers = Callers(_tokens(settings.tokens_file), settings.certificates)
    return AccessControl(AccessInterceptor(callers, limits), limits)


def _tokens(file: str | None) -> Callable[[], list[TokenLine]]:
    return list if file is None else WatchedFiles([file], partial(_read_tokens, file)).current


def _read_tokens(file: str) -> list[TokenLine]:
    try:
        return read_token_file(file)
    except ConfigurationError as error:
        raise ConfigurationError(f"{_PATH}.access.tokens_file: {error.message}") from error
