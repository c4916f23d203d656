"""Requests are decoded by the servicer, where that matters: when, and what is said of one that is not a message.

gRPC for Python ends a call whose request cannot be decoded with INTERNAL and says nothing more. Decoded, a request
takes several times its size, for as long as a write waits to be admitted, or a read for its turn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc

Q = TypeVar("Q")
R = TypeVar("R")


class DecodingInterceptor(grpc.aio.ServerInterceptor):
    """Gives the methods of a service each request as the bytes that came.

    Args:
        service: the full name of the service that knows what to make of them.
    """

    def __init__(self, service: str) -> None:
        self._prefix = f"/{service}/"

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Q, R] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Q, R] | None:
        """Leaves the method's deserializer out."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(self._prefix):
            return handler
        return handler._replace(request_deserializer=None)  # type: ignore[attr-defined, no-any-return]
