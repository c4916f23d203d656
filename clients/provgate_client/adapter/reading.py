"""Reads, unary and streamed, repeated while nothing of the answer was given away."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

import grpc

from provgate_client.adapter.queries import Query
from provgate_client.adapter.session import GatewaySession

Row = TypeVar("Row")


def read_one(session: GatewaySession, rpc: str, request: Any, method: str) -> Any:
    """Returns the response to a unary read.

    Raises:
        CallError: the call failed.
    """

    def call_once() -> Any:
        try:
            return session.rpc(rpc)(request, timeout=session.settings.read_timeout_s)
        except grpc.RpcError as error:
            raise session.failure(error, method) from error

    return session.repeat(call_once)


def gather(session: GatewaySession, query: Query[Row], add: Callable[[Iterable[Row]], None]) -> None:
    """Gives every chunk of the answer to `add`, which must not mind to see a row twice: after a repeated call it does.

    Raises:
        CallError: a call failed.
    """
    for request in query.requests:
        session.repeat(lambda request=request: _gather_once(session, query, request, add))  # type: ignore[misc]


def stream(session: GatewaySession, query: Query[Row]) -> Generator[Row, None, None]:
    """Yields the rows of the answer, in bounded memory. Closing the generator cancels the RPC.

    Raises:
        CallError: a call failed; once a row of it was yielded, it is not repeated.
    """
    for request in query.requests:
        call, chunk = session.repeat(lambda request=request: _begin(session, query, request))  # type: ignore[misc]
        try:
            while chunk is not None:
                yield from query.rows(chunk)
                chunk = _next(session, query, call)
        finally:
            call.cancel()


def _gather_once(
    session: GatewaySession, query: Query[Row], request: Any, add: Callable[[Iterable[Row]], None]
) -> None:
    call, chunk = _begin(session, query, request)
    try:
        while chunk is not None:
            add(query.rows(chunk))
            chunk = _next(session, query, call)
    finally:
        call.cancel()


def _begin(session: GatewaySession, query: Query[Any], request: Any) -> tuple[Any, Any]:
    """Returns a new call and its first chunk; None for the chunk where the answer is empty."""
    call = session.rpc(query.rpc)(request, timeout=session.settings.stream_timeout_s)
    try:
        return call, _next(session, query, call)
    except BaseException:
        call.cancel()
        raise


def _next(session: GatewaySession, query: Query[Any], call: Any) -> Any:
    try:
        return next(call, None)
    except grpc.RpcError as error:
        raise session.failure(error, query.method) from error
