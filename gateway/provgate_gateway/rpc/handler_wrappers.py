"""What wraps the handler of every RPC: call metrics, requests as bytes, the end of a call, calls in flight.

A call passes the interceptors in this order: `CallCountingInterceptor`, access control (`access.control`), the start
gate (`health.start`), `DecodingInterceptor`, and then its handler in `rpc.servicer`, which registers it with
`CallsInFlight`.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from functools import partial
from typing import Final, TypeAlias, TypeVar, cast

import grpc
from google.protobuf.message import Message

from provgate.v1 import provenance_storage_pb2
from provgate_gateway.metrics import GatewayMetrics
from provgate_runtime.watch.statsd import Durations

logger = logging.getLogger(__name__)

Q = TypeVar("Q")
R = TypeVar("R")

CallContext: TypeAlias = "grpc.aio.ServicerContext[bytes, Message]"
"""gRPC's context of a call of `provgate.v1.ProvenanceStorage`."""

Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Q, R] | None"]]
"""Returns the handler of an RPC, as the next interceptor wraps it; None if there is no such RPC."""

_CallCheck: TypeAlias = Callable[[CallContext], Awaitable[None]]

# The time in which calls that are cut short send their status.
LAST_WORDS_S: Final = 0.5

_TRIM_DELAY_S: Final = 5.0

# The peer of the call of the current task, as gRPC names it: `ipv4:127.0.0.1:50814`.
_peer: Final[ContextVar[str | None]] = ContextVar("peer", default=None)


async def within(awaitable: Awaitable[object], timeout_s: float) -> bool:
    """Awaits for at most `timeout_s`, and returns whether that was enough."""
    try:
        async with asyncio.timeout(timeout_s):
            await awaitable
    except TimeoutError:
        return False
    return True


def at_end_of_call(callback: Callable[[], None]) -> None:
    """Calls `callback` when the RPC that the current task serves has ended, however it ends.

    gRPC may leave the handler of a cancelled RPC suspended, so a `finally` there is not enough. Its own
    `ServicerContext.add_done_callback` binds the context to itself, and with it what gRPC has received for the call
    and nobody has read. Those megabytes would wait for a full garbage collection, which stops the event loop for
    hundreds of milliseconds if there are many packages.
    """
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("not called by a task")
    task.add_done_callback(lambda _: callback())


def with_check(handler: grpc.RpcMethodHandler[Q, R], check: _CallCheck) -> grpc.RpcMethodHandler[Q, R]:
    """Returns a handler that awaits `check` for each call before `handler`.

    Args:
        handler: of a unary-unary, unary-stream or stream-stream RPC.
        check: takes the context of the call, which it may abort.
    """
    answer = cast("Callable[[object, CallContext], Awaitable[object]]", handler.unary_unary)
    answers = cast(
        "Callable[[object, CallContext], AsyncGenerator[object, None]]", handler.unary_stream or handler.stream_stream
    )

    async def checked_unary(request: object, context: CallContext) -> object:
        try:
            await check(context)
            return await answer(request, context)
        except grpc.aio.AbortError as error:
            del request, context
            raise _without_frames(error) from None

    async def checked_stream(request: object, context: CallContext) -> AsyncIterator[object]:
        try:
            await check(context)
            async with aclosing(answers(request, context)) as responses:
                async for response in responses:
                    yield response
        except grpc.aio.AbortError as error:
            del request, context
            raise _without_frames(error) from None

    decode, encode = handler.request_deserializer, handler.response_serializer
    if handler.request_streaming:
        return grpc.stream_stream_rpc_method_handler(checked_stream, decode, encode)
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(checked_stream, decode, encode)
    return grpc.unary_unary_rpc_method_handler(checked_unary, decode, encode)


def _without_frames(error: grpc.aio.AbortError) -> grpc.aio.AbortError:
    """Returns the error that ends an aborted call, without the frames that raised it.

    gRPC keeps the error with the call. Frames in its traceback would keep the call, and the request with it, until a
    garbage collection.
    """
    error.__context__ = None
    return error.with_traceback(None)


class DecodingInterceptor(grpc.aio.ServerInterceptor):
    """Gives the handlers of a service each request as the bytes that arrived; they decode it themselves.

    So nothing is decoded for a caller that access control refuses. gRPC for Python would end a call whose request
    cannot be decoded with INTERNAL and no details. And a decoded request takes several times its size in memory while a
    write waits for its admission, or a read for its turn.

    Args:
        service: the full name of the service.
    """

    def __init__(self, service: str) -> None:
        self._prefix = f"/{service}/"

    async def intercept_service(
        self, continuation: Continuation[Q, R], handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Q, R] | None:
        """Removes the deserializer of the method."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(self._prefix):
            return handler
        return handler._replace(request_deserializer=None)  # type: ignore[attr-defined, no-any-return]


class CallCountingInterceptor(grpc.aio.ServerInterceptor):
    """Counts the calls of `provgate.v1.ProvenanceStorage`, those too that other interceptors end. It is the first.

    Calls of other services and of unknown methods are not counted: their names are the client's choice.

    Args:
        metrics: the call metrics.
        durations: sends how long each call took to statsd.
    """

    def __init__(self, metrics: GatewayMetrics, durations: Durations) -> None:
        self._durations = durations
        self._methods = {path: (method, metrics.of_calls(method)) for path, method in methods_by_path().items()}

    async def intercept_service(
        self, continuation: Continuation[Q, R], handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Q, R] | None:
        """Wraps the handler of an RPC of the service."""
        handler = await continuation(handler_call_details)
        path = handler_call_details.method
        if handler is None or path not in self._methods:
            return handler
        return with_check(handler, partial(self._begin, path))

    async def _begin(self, path: str, context: CallContext) -> None:
        _peer.set(context.peer())
        method, call_metrics = self._methods[path]
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        call_metrics.began()

        def end() -> None:
            duration_s = loop.time() - began_at
            call_metrics.ended(_status_code(context).name, duration_s)
            self._durations(method, duration_s)

        at_end_of_call(end)


def methods_by_path() -> dict[str, str]:
    """Returns the methods of the service, as the storage interface names them, by the paths of their RPCs."""
    service = provenance_storage_pb2.DESCRIPTOR.services_by_name["ProvenanceStorage"]
    names = [rpc.name for rpc in service.methods]
    return {f"/{service.full_name}/{name}": re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() for name in names}


def _status_code(context: CallContext) -> grpc.StatusCode:
    """Returns the status of a call that has ended. gRPC records none if the client or the deadline ended it."""
    code: object = context.code()
    if isinstance(code, grpc.StatusCode) and code is not grpc.StatusCode.OK:
        return code
    if context.done():
        return grpc.StatusCode.OK
    return grpc.StatusCode.DEADLINE_EXCEEDED if context.time_remaining() == 0 else grpc.StatusCode.CANCELLED


class CallsInFlight:
    """The calls of the service that run. Belongs to one event loop.

    Streams of other services, such as a watch of the health service, are not among them: clients keep those open.
    """

    def __init__(self) -> None:
        self._calls: dict[object, Callable[[], None] | None] = {}
        self._none_left = asyncio.Event()
        self._none_left.set()
        self._trim_is_due = False
        self._malloc_trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def add(self, cut_short: Callable[[], None] | None = None) -> None:
        """Counts the call that the current task serves until its status is sent.

        Args:
            cut_short: ends the call soon, with a status that says why; None if nothing needs to.
        """
        call = object()
        self._calls[call] = cut_short
        self._none_left.clear()
        at_end_of_call(partial(self._remove, call))

    async def end(self, grace_s: float) -> None:
        """Returns when no call is left. Calls that still run after the grace period are cut short."""
        if await within(self._none_left.wait(), grace_s):
            return
        for cut_short in list(self._calls.values()):
            if cut_short is not None:
                cut_short()
        await within(self._none_left.wait(), LAST_WORDS_S)

    def _remove(self, call: object) -> None:
        del self._calls[call]
        if not self._calls:
            self._none_left.set()
        # By itself glibc keeps free memory below a block that is in use: after a burst, hundreds of megabytes.
        if not self._trim_is_due and self._malloc_trim is not None:
            self._trim_is_due = True
            asyncio.get_running_loop().call_later(_TRIM_DELAY_S, self._trim_memory)

    def _trim_memory(self) -> None:
        self._trim_is_due = False
        if self._malloc_trim is not None:
            # On a thread: it takes milliseconds, without the lock of the interpreter.
            asyncio.get_running_loop().run_in_executor(None, self._malloc_trim, 0)


def log_vanished_clients_shortly() -> None:
    """Logs a client that disconnects during its call at debug, instead of gRPC's error with a traceback."""
    # The logger of what handlers raise.
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_not_of_vanished_client)


def _is_not_of_vanished_client(record: logging.LogRecord) -> bool:
    kind = record.exc_info[0] if record.exc_info else None
    # The error of a response that cannot be sent, since the call is over. It has no public name.
    if kind is None or kind.__name__ != "ExecuteBatchError":
        return True
    peer = _peer.get()
    logger.debug("%s disconnected during its call", peer or "a client", extra={"action": "call.abandon", "peer": peer})
    return False
