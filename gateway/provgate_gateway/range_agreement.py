"""Gateway and workers must have the same range counts: compared before the gateway serves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from provgate_broker.declaration import check_topology
from provgate_broker.errors import ConnectionLostError
from provgate_broker.session import AmqpParameters, open_session
from provgate_broker.topology import RangePolicy
from provgate_config.outage import Outage
from provgate_storage.errors import RetryableStorageError
from provgate_storage.local import LocalStorage

logger = logging.getLogger(__name__)

_WAIT_FIRST_S: Final = 0.5
_WAIT_MAX_S: Final = 10.0


class _NobodyToAskError(Exception):
    """Neither storage nor broker can be reached."""


async def agree_on_ranges(
    parameters: AmqpParameters,
    policy: RangePolicy,
    storage: LocalStorage | None,
    on_problem: Callable[[str], None] = lambda _: None,
) -> None:
    """Waits until the range counts of `policy` are known to be those of the workers.

    The storage records them and the broker's queues show them. Where one cannot be reached, the other's word is enough;
    where neither can, both are asked again, with backoff, until one can.

    Args:
        parameters: the broker.
        policy: the range counts.
        storage: the storage; None where there is none.
        on_problem: is told why neither can be asked, each time.

    Raises:
        SchemaMismatchError: the storage records others, or has no schema or one of another version.
        TopologyError: the broker's queues show others.
    """
    outage = Outage(logger, action="ranges.compare")
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(_NobodyToAskError),
        wait=wait_random_exponential(multiplier=_WAIT_FIRST_S, max=_WAIT_MAX_S),
        before_sleep=_log,
    )
    await retrying(_ask, parameters, policy, storage, outage, on_problem)
    if retrying.statistics["attempt_number"] > 1:
        outage.ended("range counts can be compared")


async def _ask(
    parameters: AmqpParameters,
    policy: RangePolicy,
    storage: LocalStorage | None,
    outage: Outage,
    on_problem: Callable[[str], None],
) -> None:
    asked: list[Callable[[], Awaitable[None]]] = [lambda: _ask_broker(parameters, policy)]
    if storage is not None:
        asked.insert(0, lambda: _ask_storage(storage, policy))
    answered = False
    problems: list[str] = []
    for ask in asked:
        try:
            await ask()
        except (RetryableStorageError, ConnectionLostError) as error:
            outage.failed("range counts cannot be compared", error)
            problems.append(str(error))
        else:
            answered = True
    if not answered:
        on_problem("; ".join(problems))
        raise _NobodyToAskError


async def _ask_storage(storage: LocalStorage, policy: RangePolicy) -> None:
    def check() -> None:
        storage.open()
        storage.check({exchange.value: count for exchange, count in policy.counts.items()})

    await asyncio.get_running_loop().run_in_executor(None, check)


async def _ask_broker(parameters: AmqpParameters, policy: RangePolicy) -> None:
    session = await open_session(parameters, "provgate-gateway start")
    try:
        await check_topology(session, policy)
    finally:
        await session.close()


def _log(state: RetryCallState) -> None:
    wait_s = state.next_action.sleep if state.next_action else 0.0
    logger.log(
        logging.WARNING if state.attempt_number == 1 else logging.DEBUG,
        "waiting for the storage or the broker; the next try is in %.1f s",
        wait_s,
        extra={"action": "ranges.compare", "wait_s": wait_s},
    )
