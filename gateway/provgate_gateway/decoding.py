"""Requests that are not messages, answered like every other bad request.

gRPC for Python ends such a call with INTERNAL and says nothing more. The interceptor here lets the servicer see it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

Q = TypeVar("Q")
R = TypeVar("R")


class Undecodable:
    """Stands for a request that could not be decoded."""


class DecodingInterceptor(grpc.aio.ServerInterceptor):
    """Gives a method of a service an `Undecodable` for each request that is not a message of its type.

    Args:
        service: the full name of the service that knows what to make of it.
    """

    def __init__(self, service: str) -> None:
        self._prefix = f"/{service}/"

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Q, R] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Q, R] | None:
        """Wraps the method's deserializer."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None or not self._decodes(handler_call_details):
            return handler
        deserialize = handler.request_deserializer

        def decode(body: bytes) -> Any:
            try:
                return deserialize(body)
            except DecodeError:
                return Undecodable()

        return handler._replace(request_deserializer=decode)  # type: ignore[attr-defined, no-any-return]

    def _decodes(self, handler_call_details: grpc.HandlerCallDetails) -> bool:
        method: str = handler_call_details.method
        return method.startswith(self._prefix)
