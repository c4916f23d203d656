"""What wraps the handlers of calls leaves nothing behind when they end; calls in flight get their time to end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from provgate_gateway.rpc.handler_wrappers import LAST_WORDS_S, CallsInFlight, at_end_of_call, with_check
from tests.support.async_tests import virtually

Serving = Callable[[grpc.aio.Channel], Coroutine[Any, Any, None]]


def _contexts() -> int:
    return sum(type(found).__name__ == "_ServicerContext" for found in gc.get_objects())


async def _serve(service: grpc.GenericRpcHandler, call: Serving, is_done: Callable[[], bool]) -> None:
    """Serves while `call` runs, and returns once that is done and no context of a call is left."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([service])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await call(channel)
        async with asyncio.timeout(10):
            while not is_done() or _contexts():  # noqa: ASYNC110 - gRPC tells nobody
                await asyncio.sleep(0.01)
    await server.stop(None)


@contextmanager
def without_garbage_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _Endless(grpc.GenericRpcHandler):
    """Reads a message of each call and answers without end, as a write does."""

    def __init__(self) -> None:
        self.ended_count = 0

    def _end(self) -> None:
        self.ended_count += 1

    def service(self, handler_call_details: Any) -> Any:
        async def answers(_: Any, context: Any) -> AsyncIterator[bytes]:
            at_end_of_call(self._end)
            await context.read()
            while True:
                yield b"answer"

        async def check(_: Any) -> None:
            at_end_of_call(self._end)

        return with_check(grpc.stream_stream_rpc_method_handler(answers), check)


def test_cancelled_calls_are_freed_without_the_garbage_collector() -> None:
    service = _Endless()

    async def call(channel: Any) -> None:
        for _ in range(10):
            each = channel.stream_stream("/service/method")()
            await each.write(b"message")
            await each.read()
            each.cancel()

    with without_garbage_collector():
        asyncio.run(_serve(service, call, lambda: service.ended_count == 20))


class _Refusing(grpc.GenericRpcHandler):
    """Refuses each call, as the gateway does: the error says why, and gRPC's own ends the call."""

    def service(self, handler_call_details: Any) -> Any:
        async def refuse(context: Any) -> None:
            try:
                raise ValueError("no")
            except ValueError:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no")

        async def answer(_: bytes, context: Any) -> bytes:
            await refuse(context)
            return b""

        async def answers(_: Any, context: Any) -> AsyncIterator[bytes]:
            await refuse(context)
            yield b""

        async def check(context: Any) -> None:
            if handler_call_details.method == "/service/checked":
                await refuse(context)

        handlers: dict[str, Any] = {
            "/service/unary": grpc.unary_unary_rpc_method_handler(answer),
            "/service/stream": grpc.unary_stream_rpc_method_handler(answers),
            "/service/streams": grpc.stream_stream_rpc_method_handler(answers),
            "/service/checked": grpc.stream_stream_rpc_method_handler(answers),
        }
        return with_check(handlers[handler_call_details.method], check)


def test_refused_calls_are_freed_without_the_garbage_collector() -> None:
    async def call(channel: Any) -> None:
        calls: list[Any] = []
        for _ in range(5):
            calls += [
                channel.unary_unary("/service/unary")(b"message"),
                channel.unary_stream("/service/stream")(b"message"),
                channel.stream_stream("/service/streams")(),
                channel.stream_stream("/service/checked")(),
            ]
        assert {await each.code() for each in calls} == {grpc.StatusCode.RESOURCE_EXHAUSTED}

    with without_garbage_collector():
        asyncio.run(_serve(_Refusing(), call, lambda: True))


@virtually
async def test_calls_in_flight_get_the_grace_period_and_are_then_cut_short() -> None:
    loop, in_flight, cut = asyncio.get_running_loop(), CallsInFlight(), asyncio.Event()

    async def call(duration_s: float) -> None:
        in_flight.add(cut.set)
        await asyncio.sleep(duration_s)

    calls = [asyncio.create_task(call(duration_s)) for duration_s in (1, 2, 60)]
    await asyncio.sleep(0)
    await in_flight.end(3)
    # One that does not end when it is cut short is waited for only as long as its status takes.
    assert (loop.time(), cut.is_set()) == (3 + LAST_WORDS_S, True)
    calls[-1].cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await in_flight.end(60)
    assert loop.time() == 3 + LAST_WORDS_S
