"""What gRPC logs of clients that go away while they are answered: told as what it is, and by whom."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

import grpc

from provgate.v1 import provenance_storage_pb2
from provgate_gateway.metrics import GatewayMetrics
from provgate_gateway.rpc import handler_wrappers as vanished_clients
from provgate_runtime.watch.statsd import Durations

logger = logging.getLogger(__name__)


async def within(awaitable: Awaitable[object], timeout_s: float) -> bool:
    """Awaits, for at most so long, and returns whether that was enough."""
    try:
        async with asyncio.timeout(timeout_s):
            await awaitable
    except TimeoutError:
        return False
    return True


_TRIM_DELAY_S: Final = 5.0


def at_end_of_call(callback: Callable[[], None]) -> None:
    """Has `callback` called once the RPC that the current task serves has ended, however it does.

    gRPC's own `ServicerContext.add_done_callback` binds the context to itself, and with it what its core has received
    for the call and nobody read: some megabytes that wait for a full garbage collection, which halts the event loop for
    some hundred milliseconds when there are many packages.
    """
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("not called by a task")
    task.add_done_callback(lambda _: callback())


class FreedMemory:
    """Has glibc give memory back to the system some seconds after calls have ended. Belongs to one event loop.

    By itself glibc keeps what lies below a block that is still used: after a burst, hundreds of megabytes.
    """

    def __init__(self) -> None:
        self._due = False
        libc = ctypes.CDLL(None)
        self._trim: Callable[[int], int] | None = getattr(libc, "malloc_trim", None)

    def note_end(self) -> None:
        """Tells that a call has ended."""
        if not self._due and self._trim is not None:
            self._due = True
            asyncio.get_running_loop().call_later(_TRIM_DELAY_S, self._give_back)

    def _give_back(self) -> None:
        self._due = False
        if self._trim is not None:
            # On a thread: the call takes milliseconds, and other threads run on meanwhile.
            asyncio.get_running_loop().run_in_executor(None, self._trim, 0)


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


# How long calls that are cut short have to send their status.
LAST_WORDS_S: Final = 0.5


class CallsInFlight:
    """The calls of the service that run. Belongs to one event loop.

    Streams of other services, such as a watch of the health service, last as long as their clients like.
    """

    def __init__(self) -> None:
        self._cuts: dict[object, Callable[[], None]] = {}
        self._none_left = asyncio.Event()
        self._none_left.set()
        self._freed_memory = FreedMemory()

    def add(self, cut_short: Callable[[], None] = lambda: None) -> None:
        """Counts the call that the current task serves until its status is sent.

        Args:
            cut_short: has it end soon, with a status that says why.
        """
        call = object()
        self._cuts[call] = cut_short
        self._none_left.clear()
        at_end_of_call(lambda: self._remove(call))

    async def end(self, grace_s: float) -> None:
        """Returns once no call is left; those that still run after the grace period are cut short."""
        if await within(self._none_left.wait(), grace_s):
            return
        for cut_short in list(self._cuts.values()):
            cut_short()
        await within(self._none_left.wait(), LAST_WORDS_S)

    def _remove(self, call: object) -> None:
        del self._cuts[call]
        self._freed_memory.note_end()
        if not self._cuts:
            self._none_left.set()


Q = TypeVar("Q")
R = TypeVar("R")


class CallCountingInterceptor(grpc.aio.ServerInterceptor):
    """Counts the calls of `provgate.v1.ProvenanceStorage`, those too that other interceptors end. Goes first of all.

    Calls of other services, and of methods that there are not, are not counted: whoever makes them chooses their names.

    Args:
        metrics: what counts.
        durations: is told how long each call took.
    """

    def __init__(self, metrics: GatewayMetrics, durations: Durations) -> None:
        self._durations = durations
        self._methods = {path: (method, metrics.of_calls(method)) for path, method in methods_by_path().items()}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Q, R] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Q, R] | None:
        """Wraps the handler of an RPC of the service."""
        handler = await continuation(handler_call_details)
        path = handler_call_details.method
        if handler is None or path not in self._methods:
            return handler
        counted: grpc.RpcMethodHandler[Q, R] = entered(handler, partial(self._begin, path))
        return counted

    async def _begin(self, path: str, context: Any) -> None:
        vanished_clients.peer.set(context.peer())
        method, calls = self._methods[path]
        durations = self._durations
        began_at = time.monotonic()
        calls.began()

        def ended() -> None:
            duration_s = time.monotonic() - began_at
            calls.ended(_code_of(context).name, duration_s)
            durations(method, duration_s)

        # However the call ends: a cancelled one may leave its handler suspended for ever.
        at_end_of_call(ended)


def methods_by_path() -> dict[str, str]:
    """Returns the methods of the service, as they are written in the interface, by the paths of their RPCs."""
    service = provenance_storage_pb2.DESCRIPTOR.services_by_name["ProvenanceStorage"]
    return {f"/{service.full_name}/{rpc.name}": _snake_case(rpc.name) for rpc in service.methods}


def _snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _code_of(context: Any) -> grpc.StatusCode:
    """Returns how a call has ended. gRPC notes nothing of one that the client, or its deadline, has ended."""
    code = context.code()
    if isinstance(code, grpc.StatusCode) and code is not grpc.StatusCode.OK:
        return code
    if context.done():
        return grpc.StatusCode.OK
    return grpc.StatusCode.DEADLINE_EXCEEDED if context.time_remaining() == 0 else grpc.StatusCode.CANCELLED


peer: Final[ContextVar[str | None]] = ContextVar("peer", default=None)
"""Who makes the call of the current task, as gRPC names it: `ipv4:127.0.0.1:50814`."""


def log_vanished_clients_shortly() -> None:
    """Has a client that vanished logged at debug, with its address, instead of gRPC's error with a traceback."""
    # Where gRPC logs what a handler raised.
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_not_of_client)


def _is_not_of_client(record: logging.LogRecord) -> bool:
    kind = record.exc_info[0] if record.exc_info else None
    # Something could not be sent, since the call is over. The error has no public name.
    if kind is None or kind.__name__ != "ExecuteBatchError":
        return True
    address = peer.get()
    extra = {"action": "call.abandon", "peer": address}
    logger.debug("%s went away while it was answered", address or "a client", extra=extra)
    return False
