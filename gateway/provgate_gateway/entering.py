"""Handlers of RPCs before which something happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc

Enter: TypeAlias = Callable[[Any], Awaitable[None]]
"""Is given the context of a call, which it may end."""


def entered(handler: Any, enter: Enter) -> Any:
    """Returns a handler that awaits `enter` for each call before the one given.

    Before a single request is decoded, too; the messages of a stream are decoded when they are asked for.
    """
    if handler.request_streaming:
        return handler._replace(stream_stream=_entered_stream(handler.stream_stream, enter, _as_it_is))
    decode = handler.request_deserializer or _as_it_is
    if handler.response_streaming:
        behavior = _entered_stream(handler.unary_stream, enter, decode)
        return handler._replace(request_deserializer=None, unary_stream=behavior)
    return handler._replace(request_deserializer=None, unary_unary=_entered_unary(handler.unary_unary, enter, decode))


def _entered_unary(behavior: Any, enter: Enter, decode: Callable[[Any], Any]) -> Any:
    async def entered_behavior(request: Any, context: Any) -> Any:
        try:
            await enter(context)
            return await behavior(decode(request), context)
        except grpc.aio.AbortError as error:
            request = context = None
            raise _without_frames(error) from None

    return entered_behavior


def _entered_stream(behavior: Any, enter: Enter, decode: Callable[[Any], Any]) -> Any:
    async def entered_behavior(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            await enter(context)
            async with aclosing(behavior(decode(request), context)) as responses:
                async for response in responses:
                    yield response
        except grpc.aio.AbortError as error:
            request = context = None
            raise _without_frames(error) from None

    return entered_behavior


def _without_frames(error: grpc.aio.AbortError) -> grpc.aio.AbortError:
    """Returns the error that ends an aborted call, without what it passed.

    gRPC keeps the error with the call. Frames that its traceback names keep the call, and the request with it, until a
    garbage collection.
    """
    error.__context__ = None
    return error.with_traceback(None)


def _as_it_is(request: Any) -> Any:
    return request
