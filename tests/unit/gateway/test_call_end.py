"""What calls leave behind when they have ended."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import grpc

from provgate_gateway.rpc.handler_wrappers import at_end_of_call, entered


def _contexts() -> int:
    return sum(type(found).__name__ == "_ServicerContext" for found in gc.get_objects())


class _Service(grpc.GenericRpcHandler):
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

        async def enter(_: Any) -> None:
            at_end_of_call(self._end)

        return entered(grpc.stream_stream_rpc_method_handler(answers), enter)


def test_cancelled_calls_are_freed_without_the_garbage_collector() -> None:
    async def main() -> None:
        service = _Service()
        server = grpc.aio.server()
        server.add_generic_rpc_handlers([service])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for _ in range(10):
                call: Any = channel.stream_stream("/service/method")()
                await call.write(b"message")
                await call.read()
                call.cancel()
            async with asyncio.timeout(10):
                while service.ended_count < 20 or _contexts():  # noqa: ASYNC110 - gRPC tells nobody
                    await asyncio.sleep(0.01)
        await server.stop(None)

    gc.collect()
    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()


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

        async def enter(context: Any) -> None:
            if handler_call_details.method == "/service/entered":
                await refuse(context)

        handlers: dict[str, Any] = {
            "/service/unary": grpc.unary_unary_rpc_method_handler(answer),
            "/service/stream": grpc.unary_stream_rpc_method_handler(answers),
            "/service/streams": grpc.stream_stream_rpc_method_handler(answers),
            "/service/entered": grpc.stream_stream_rpc_method_handler(answers),
        }
        return entered(handlers[handler_call_details.method], enter)


def test_refused_calls_are_freed_without_the_garbage_collector() -> None:
    async def main() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers([_Refusing()])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        channel: Any
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            calls: list[Any] = []
            for _ in range(5):
                calls += [
                    channel.unary_unary("/service/unary")(b"message"),
                    channel.unary_stream("/service/stream")(b"message"),
                    channel.stream_stream("/service/streams")(),
                    channel.stream_stream("/service/entered")(),
                ]
            codes = [await call.code() for call in calls]
            assert set(codes) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
            async with asyncio.timeout(10):
                while _contexts():  # noqa: ASYNC110 - gRPC tells nobody
                    await asyncio.sleep(0.01)
        await server.stop(None)

    gc.collect()
    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()
