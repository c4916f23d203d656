"""Where it is decided whether a call is let in: who makes it, whether they may, and whether they make too many."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc

from provgate_gateway import errors
from provgate_gateway.access.limits import PrincipalLimits
from provgate_gateway.access.principals import Callers, Principal, set_principal
from provgate_gateway.access.roles import Role, needed_role
from provgate_gateway.call_end import at_end_of_call
from provgate_gateway.entering import entered
from provgate_gateway.errors import CallError

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
