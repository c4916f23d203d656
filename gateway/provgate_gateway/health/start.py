"""Before the gateway takes calls: it refuses them until its range counts are known to be those of the workers."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final, TypeVar

import grpc

from provgate.v1 import errors_pb2
from provgate_broker.amqp.connection import AmqpParameters, open_session
from provgate_broker.amqp.link import retry_with_backoff
from provgate_broker.errors import ConnectionLostError, MissingTopologyError, TopologyError
from provgate_broker.topology.declaration import check_topology
from provgate_broker.topology.policy import RangePolicy
from provgate_gateway import errors
from provgate_gateway.health.health import Readiness
from provgate_gateway.rpc.handler_wrappers import CallContext, Continuation, with_check
from provgate_runtime.outage import Outage
from provgate_storage.database.local import LocalStorage
from provgate_storage.errors import NotSetUpError, RetryableStorageError

logger = logging.getLogger(__name__)

Q = TypeVar("Q")
R = TypeVar("R")

_WAIT_FIRST_S: Final = 0.5
_WAIT_MAX_S: Final = 5.0


class StartGate(grpc.aio.ServerInterceptor):
    """Ends the calls of a service with UNAVAILABLE until it is opened. Belongs to one event loop.

    Args:
        service: the full name of the service.

    Attributes:
        is_open: whether calls pass.
    """

    def __init__(self, service: str) -> None:
        self._prefix = f"/{service}/"
        self.is_open = False

    async def intercept_service(
        self, continuation: Continuation[Q, R], handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Q, R] | None:
        """Returns a handler that refuses the call while the gate is closed."""
        handler = await continuation(handler_call_details)
        method: str = handler_call_details.method
        if self.is_open or handler is None or not method.startswith(self._prefix):
            return handler
        return with_check(handler, _refuse)


async def _refuse(context: CallContext) -> None:
    error = errors.unavailable(
        errors_pb2.ERROR_REASON_STORAGE_UNAVAILABLE,
        "the gateway has started and waits for its broker or its local storage; its log has the reason",
    )
    await context.abort_with_status(error.status())


class _NotComparedError(Exception):
    """Neither broker nor storage has confirmed the range counts yet. The text says why."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What storage or broker say about the range counts.

    Attributes:
        problem: why they could not be compared; None if they are equal.
        reached: whether it answered.
    """

    problem: str | None = None
    reached: bool = True


async def agree_on_ranges(
    parameters: AmqpParameters, policy: RangePolicy, storage: LocalStorage | None, readiness: Readiness
) -> None:
    """Waits until the range counts are known to be those of the workers.

    The storage records the counts, and the broker's queues show them. If one of the two cannot be reached, the other's
    answer is enough. One that can be reached and is not set up yet is waited for, since programs start in any order. A
    server that refuses the password counts as one that cannot be reached.

    Args:
        parameters: the broker.
        policy: the range counts.
        storage: the storage; None if there is none.
        readiness: gets the conditions `storage` and `broker` after each attempt.

    Raises:
        SchemaMismatchError: the storage records other counts, or has a schema of another version.
        TopologyError: the broker's queues show other counts.
    """
    outage = Outage(logger, action="ranges.compare")

    async def compare() -> None:
        answers: dict[str, _Answer] = {}
        if storage is not None:
            answers["storage"] = await _ask_storage(storage, policy)
        # Set-up configures the storage first.
        is_setting_up = storage is not None and answers["storage"].reached
        answers["broker"] = await _ask_broker(parameters, policy, is_setting_up)
        problems = {name: answer.problem for name, answer in answers.items()}
        for name, problem in problems.items():
            readiness.set(name, problem)
        is_confirmed = None in problems.values()
        if not is_confirmed or any(answer.problem and answer.reached for answer in answers.values()):
            reasons = "; ".join(f"{name}: {problem}" for name, problem in problems.items() if problem)
            outage.failed("calls are taken once range counts can be compared", reasons)
            raise _NotComparedError(reasons)

    await retry_with_backoff(_NotComparedError, first_s=_WAIT_FIRST_S, max_s=_WAIT_MAX_S)(compare)
    outage.ended("range counts were compared")


async def _ask_storage(storage: LocalStorage, policy: RangePolicy) -> _Answer:
    def check() -> None:
        storage.open()
        storage.check({exchange.value: count for exchange, count in policy.counts.items()})

    try:
        await asyncio.to_thread(check)
    except NotSetUpError as error:
        return _Answer(str(error))
    except RetryableStorageError as error:
        return _Answer(str(error), reached=False)
    return _Answer()


async def _ask_broker(parameters: AmqpParameters, policy: RangePolicy, is_setting_up: bool) -> _Answer:
    try:
        session = await open_session(parameters, "provgate-gateway start")
    except ConnectionLostError as error:
        return _Answer(f"no connection to {parameters.address}: {error}", reached=False)
    try:
        await check_topology(session, policy)
    except MissingTopologyError as error:
        if error.partial and not is_setting_up:
            # The queues that are there belong to another range count.
            raise TopologyError(str(error)) from error
        return _Answer(str(error))
    except ConnectionLostError as error:
        return _Answer(f"the connection to {parameters.address} is lost: {error}", reached=False)
    finally:
        await session.close()
    return _Answer()
