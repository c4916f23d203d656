"""Requests are decoded by the servicer, where that matters: when, and what is said of one that is not a message.

gRPC for Python ends a call whose request cannot be decoded with INTERNAL and says nothing more. And of a stream it
holds the last message until the next one is asked for: decoded, in more than five times its size, for as long as the
write waits to be admitted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

Q = TypeVar("Q")
R = TypeVar("R")


class Undecodable:
    """Stands for a single request that could not be decoded."""


class DecodingInterceptor(grpc.aio.ServerInterceptor):
    """Gives a method of a service an `Undecodable` for a request that is not a message of its type.

    A method that takes a stream of requests gets each of them as the bytes that came.

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
        """Wraps the method's deserializer, or leaves it out."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None or not self._decodes(handler_call_details):
            return handler
        if handler.request_streaming:
            return handler._replace(request_deserializer=None)  # type: ignore[attr-defined, no-any-return]
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
