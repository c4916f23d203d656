"""Counts the calls of the service: how many run, how they end, and how long they take."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import grpc

from provgate.v1 import provenance_storage_pb2
from provgate_gateway import vanished_clients
from provgate_gateway.call_end import at_end_of_call
from provgate_gateway.entering import entered
from provgate_gateway.metrics import GatewayMetrics
from provgate_telemetry.statsd import Durations

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
