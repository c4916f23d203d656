"""Gateway and workers must have the same range counts: compared before the gateway takes calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tenacity import AsyncRetrying, retry_if_result, wait_random_exponential

from provgate_broker.amqp.connection import AmqpParameters, open_session
from provgate_broker.errors import ConnectionLostError, MissingTopologyError, TopologyError
from provgate_broker.topology.declaration import check_topology
from provgate_broker.topology.policy import RangePolicy
from provgate_runtime.outage import Outage
from provgate_storage.database.local import LocalStorage
from provgate_storage.errors import NotSetUpError, RetryableStorageError

logger = logging.getLogger(__name__)

STORAGE: Final = "storage"
BROKER: Final = "broker"

_WAIT_FIRST_S: Final = 0.5
_WAIT_MAX_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Answer:
    """What storage or broker said of the range counts.

    Attributes:
        problem: why they could not be compared; None where they are the same.
        reached: whether it was reached at all.
    """

    problem: str | None = None
    reached: bool = True


async def agree_on_ranges(
    parameters: AmqpParameters,
    policy: RangePolicy,
    storage: LocalStorage | None,
    on_problem: Callable[[str, str | None], None] = lambda *_: None,
) -> None:
    """Waits until the range counts of `policy` are known to be those of the workers.

    The storage records them and the broker's queues show them. Where one cannot be reached, the other's word is enough.
    One that is reached and not set up yet is waited for, since nobody starts all programs in order. So is a wrong
    password: that is a server which cannot be reached.

    Args:
        parameters: the broker.
        policy: the range counts.
        storage: the storage; None where there is none.
        on_problem: is told for `STORAGE` and `BROKER` what is waited for, or None, after each look.

    Raises:
        SchemaMismatchError: the storage records others, or has a schema of another version.
        TopologyError: the broker's queues show others.
    """
    outage = Outage(logger, action="ranges.compare")

    async def look() -> bool:
        answers = {}
        if storage is not None:
            answers[STORAGE] = await _ask_storage(storage, policy)
        may_be_under_way = storage is not None and answers[STORAGE].reached
        answers[BROKER] = await _ask_broker(parameters, policy, may_be_under_way)
        for name, answer in answers.items():
            on_problem(name, answer.problem)
        agreed = [answer.problem is None for answer in answers.values()]
        if any(agreed) and all(answer.problem is None or not answer.reached for answer in answers.values()):
            return True
        waited_for = "; ".join(f"{name}: {answer.problem}" for name, answer in answers.items() if answer.problem)
        outage.failed("calls are taken once range counts can be compared", waited_for)
        return False

    waiting = wait_random_exponential(multiplier=_WAIT_FIRST_S, max=_WAIT_MAX_S)
    await AsyncRetrying(retry=retry_if_result(lambda agreed: not agreed), wait=waiting)(look)
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


async def _ask_broker(parameters: AmqpParameters, policy: RangePolicy, may_be_under_way: bool) -> _Answer:
    try:
        session = await open_session(parameters, "provgate-gateway start")
    except ConnectionLostError as error:
        return _Answer(f"no connection to {parameters.address}: {error}", reached=False)
    try:
        await check_topology(session, policy)
    except MissingTopologyError as error:
        if error.partial and not may_be_under_way:
            # Set-up comes to the broker after the storage: these are queues of another range count.
            raise TopologyError(str(error)) from error
        return _Answer(str(error))
    except ConnectionLostError as error:
        return _Answer(f"the connection to {parameters.address} is lost: {error}", reached=False)
    finally:
        await session.close()
    return _Answer()
