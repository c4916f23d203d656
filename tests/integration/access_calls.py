"""Calls that say who makes them, and a walk over all RPCs of a gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.support.gateway_calls import Outcome, outcome_of

_WALK_S = 10.0


class _Showing:
    """A channel whose calls have metadata."""

    def __init__(self, channel: grpc.Channel, metadata: tuple[tuple[str, str], ...]) -> None:
        self._channel = channel
        self._metadata = metadata

    def __getattr__(self, name: str) -> Callable[..., Any]:
        make_rpc = getattr(self._channel, name)
        return lambda *args, **options: partial(make_rpc(*args, **options), metadata=self._metadata)


def showing(channel: grpc.Channel, *metadata: tuple[str, str]) -> Any:
    """Returns a channel whose calls have metadata."""
    return _Showing(channel, metadata)


def bearer(token: str) -> tuple[str, str]:
    """Returns the metadata of who has a token."""
    return "authorization", f"Bearer {token}"


def as_holder(channel: grpc.Channel, token: str | None) -> Any:
    """Returns a channel whose calls show a token, if there is one."""
    return channel if token is None else showing(channel, bearer(token))


@dataclass(frozen=True)
class Rpc:
    """An RPC of a gateway.

    Attributes:
        name: as gRPC has it: `/package.Service/Method`.
        method: its descriptor.
    """

    name: str
    method: Any

    def outcome(self, channel: Any) -> Outcome:
        """Calls with an empty request, or none of a stream, and reads one response at most."""
        return outcome_of(self._responses(channel))

    def _responses(self, channel: Any) -> Iterator[Any]:
        if not self.method.server_streaming:
            yield channel.unary_unary(self.name)(b"", timeout=_WALK_S)
            return
        if self.method.client_streaming:
            call = channel.stream_stream(self.name)(iter(()), timeout=_WALK_S)
        else:
            call = channel.unary_stream(self.name)(b"", timeout=_WALK_S)
        yield from _first(call)


def _first(call: Any) -> Iterator[Any]:
    try:
        for response in call:
            yield response
            return
    finally:
        call.cancel()


def rpcs_of(channel: grpc.Channel) -> list[Rpc]:
    """Returns all RPCs of all services that a gateway tells of."""
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    services = [pool.FindServiceByName(name) for name in database.get_services()]
    return [_rpc(service.full_name, method) for service in services for method in service.methods]


def _rpc(service: str, method: MethodDescriptor) -> Rpc:
    return Rpc(f"/{service}/{method.name}", method)
