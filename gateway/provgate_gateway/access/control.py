"""Applies access control to each call: finds the principal, checks its role and its limit of concurrent calls."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

import grpc

from provgate_gateway import errors
from provgate_gateway.access.limits import PrincipalLimits
from provgate_gateway.access.principals import Callers, set_principal
from provgate_gateway.access.roles import Role, needed_role
from provgate_gateway.access.tokens import TokenLine, read_token_file
from provgate_gateway.access.watched_files import WatchedFiles
from provgate_gateway.errors import CallError
from provgate_gateway.rpc.handler_wrappers import CallContext, Continuation, at_end_of_call, with_check
from provgate_gateway.settings import AccessSettings
from provgate_runtime import ConfigurationError

logger = logging.getLogger(__name__)

Q = TypeVar("Q")
R = TypeVar("R")

_PATH: Final = "provenance.gateway.access"


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Admits or refuses each call before its request is read or decoded. Belongs to one event loop.

    An RPC that the gateway does not serve stays UNIMPLEMENTED for everybody.

    Args:
        callers: finds principals.
        limits: the limits of each principal.

    Attributes:
        limits: the same, for the quotas of writes.
    """

    def __init__(self, callers: Callers, limits: PrincipalLimits) -> None:
        self._callers = callers
        self.limits = limits

    async def intercept_service(
        self, continuation: Continuation[Q, R], handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Q, R] | None:
        """Returns a handler that checks each call first, if the RPC needs a role."""
        handler = await continuation(handler_call_details)
        needed = needed_role(handler_call_details.method)
        if handler is None or needed is None:
            return handler
        return with_check(handler, partial(self._admit, needed))

    async def _admit(self, needed: Role, context: CallContext) -> None:
        """Sets the principal of a call, or aborts the call."""
        try:
            principal = self._callers.identify(context.invocation_metadata() or (), context.auth_context)
            if not principal.role.includes(needed):
                raise errors.permission_denied(
                    f"{principal.name} has the role {principal.role.value}, and the call needs the role {needed.value}"
                )
            self.limits.begin_call(principal)
        except CallError as error:
            # At debug: strangers can cause any number of these. Metrics count them.
            extra = {"action": "call.refuse", "peer": context.peer(), "reason": error.message}
            logger.debug("refused a call of %s: %s", context.peer(), error.message, extra=extra)
            await context.abort_with_status(error.status())
        else:
            at_end_of_call(partial(self.limits.end_call, principal))
            set_principal(principal)


def access_control(settings: AccessSettings, *, client_ca: bool, private: bool) -> AccessInterceptor | None:
    """Returns the interceptor for the settings; None if they ask for no access control.

    Args:
        settings: who may call.
        client_ca: whether client certificates are required.
        private: whether nobody can read the traffic.

    Raises:
        ConfigurationError: the file of tokens is missing or invalid, or certificates are named and not required.
    """
    if not settings.is_controlled:
        return None
    if settings.certificates and not client_ca:
        raise ConfigurationError(f"{_PATH}.certificates: they need tls_client_ca, which makes clients send them")
    tokens: Callable[[], list[TokenLine]] = list
    if settings.tokens_file is not None:
        if not private:
            logger.warning(
                "tokens are sent in plain text, to an address that other machines reach",
                extra={"action": "access.plaintext"},
            )
        tokens = WatchedFiles([settings.tokens_file], partial(_read_tokens, settings.tokens_file)).current
    return AccessInterceptor(Callers(tokens, settings.certificates), PrincipalLimits(settings.limits))


def _read_tokens(file: str) -> list[TokenLine]:
    try:
        return read_token_file(file)
    except ConfigurationError as error:
        raise ConfigurationError(f"{_PATH}.tokens_file: {error.message}") from error
