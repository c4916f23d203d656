"""Calls that come before the gateway takes any: while it waits for broker or storage, health alone is answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc

from provgate.v1 import errors_pb2
from provgate_gateway import errors
from provgate_gateway.rpc.handler_wrappers import entered

Q = TypeVar("Q")
R = TypeVar("R")


class StartGate(grpc.aio.ServerInterceptor):
    """Ends the calls of a service with UNAVAILABLE until it is opened. Belongs to one event loop.

    Args:
        service: the full name of the service.

    Attributes:
        is_open: whether calls pass.
    """

    def __init__(self, service: str) -> None:
        self._prefix = f"/{service}/"
        self.is_open = False

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Q, R] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Q, R] | None:
        """Puts the end of the call in the place of what the handler does."""
        handler = await continuation(handler_call_details)
        method: str = handler_call_details.method
        if self.is_open or handler is None or not method.startswith(self._prefix):
            return handler
        refusing: grpc.RpcMethodHandler[Q, R] = entered(handler, _refuse)
        return refusing


async def _refuse(context: Any) -> None:
    error = errors.unavailable(
        errors_pb2.ERROR_REASON_STORAGE_UNAVAILABLE,
        "the gateway has been started and waits for its broker or its local storage; its log says for what",
    )
    await context.abort_with_status(error.status())
