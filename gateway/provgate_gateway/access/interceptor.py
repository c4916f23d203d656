"""Where it is decided whether a call is let in: who makes it, whether they may, and whether they make too many."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import grpc

from provgate_gateway import errors
from provgate_gateway.access.limits import PrincipalLimits
from provgate_gateway.access.principals import Callers, Principal, set_principal
from provgate_gateway.access.roles import Role, needed_role
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
        guarded: grpc.RpcMethodHandler[Q, R] = self._guarded(handler, needed)
        return guarded

    def _guarded(self, handler: Any, needed: Role) -> Any:
        decode = handler.request_deserializer or _as_it_is
        if handler.request_streaming:
            # Messages of a stream are decoded when they are asked for.
            return handler._replace(stream_stream=self._guarded_stream(handler.stream_stream, _as_it_is, needed))
        if handler.response_streaming:
            guarded = self._guarded_stream(handler.unary_stream, decode, needed)
            return handler._replace(request_deserializer=None, unary_stream=guarded)
        return handler._replace(
            request_deserializer=None, unary_unary=self._guarded_unary(handler.unary_unary, decode, needed)
        )

    def _guarded_unary(self, behavior: Any, decode: Callable[[Any], Any], needed: Role) -> Any:
        async def guarded(request: Any, context: Any) -> Any:
            await self._let_in(context, needed)
            return await behavior(decode(request), context)

        return guarded

    def _guarded_stream(self, behavior: Any, decode: Callable[[Any], Any], needed: Role) -> Any:
        async def guarded(request: Any, context: Any) -> AsyncIterator[Any]:
            await self._let_in(context, needed)
            async with aclosing(behavior(decode(request), context)) as responses:
                async for response in responses:
                    yield response

        return guarded

    async def _let_in(self, context: Any, needed: Role) -> None:
        """Says who makes the call from here on, or ends it."""
        try:
            principal = self._callers.identify(context.invocation_metadata(), context.auth_context)
            _check_role(principal, needed)
            self._limits.begin_call(principal, context)
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


def _as_it_is(request: Any) -> Any:
    return request
