"""Prepares database and broker before packages are taken: schema, topology, and range counts that agree."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from provgate_broker.amqp.connection import AmqpSession, open_session
from provgate_broker.errors import ConnectionLostError, MissingTopologyError, NotPermittedError, TopologyError
from provgate_broker.settings import PATH
from provgate_broker.topology.declaration import check_topology, declare_topology, remove_outgrown_queues
from provgate_broker.topology.inspection import TopologyReport, inspect_topology
from provgate_broker.topology.policy import RangePolicy
from provgate_runtime.outage import Outage
from provgate_storage.database.local import LocalStorage
from provgate_storage.errors import (
    NotSetUpError,
    RetryableStorageError,
    SchemaMismatchError,
    StorageError,
    StorageForbiddenError,
)
from provgate_workers.errors import FatalError
from provgate_workers.program.readiness import ProgramReadiness
from provgate_workers.settings import WorkerConfiguration

logger = logging.getLogger(__name__)

_NAME: Final = "provgate-workers setup"
_NAMED_COUNT: Final = 5
_SET_UP_TRIES: Final = 5
_BACKOFF_FIRST_S: Final = 0.5
_BACKOFF_MAX_S: Final = 5.0

_NOT_SET_UP: Final = (StorageForbiddenError, NotSetUpError, MissingTopologyError)
_AWAITED: Final = (RetryableStorageError, ConnectionLostError, *_NOT_SET_UP)


async def prepare(configuration: WorkerConfiguration, readiness: ProgramReadiness) -> None:
    """Makes sure that packages can be taken: sets an empty database up, declares what is missing on the broker.

    Programs may start in any order: it waits without end for a database or broker that cannot be reached, and for
    set-up if the program's users may not do it. A set-up of the database that fails is tried some times.

    Args:
        configuration: of the program.
        readiness: notes why it waits, each time.

    Raises:
        FatalError: the database or the broker is not what the program expects, or the database cannot be set up. The
            text says why.
    """
    await _prepare(configuration, readiness)


async def set_up(configuration: WorkerConfiguration) -> None:
    """Creates schema and topology where they are missing, and puts changed range counts into force.

    Waits for a database or a broker that cannot be reached.

    Raises:
        FatalError: as `prepare`, or a range count cannot change because queues of the old one are in use.
    """
    await _prepare(configuration, None)


async def _prepare(configuration: WorkerConfiguration, readiness: ProgramReadiness | None) -> None:
    """Prepares database and broker until it succeeds: for a program with `readiness`, else as an explicit set-up."""
    outage = Outage(logger, action="workers.prepare")
    set_up_failure_count = 0
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(_AWAITED),
        wait=wait_random_exponential(multiplier=_BACKOFF_FIRST_S, max=_BACKOFF_MAX_S),
    )
    try:
        async for attempt in retrying:
            with attempt:
                try:
                    await _prepare_once(configuration, sets_up=readiness is None)
                except _AWAITED as error:
                    if readiness is None and isinstance(error, _NOT_SET_UP):
                        # Nobody else will set it up.
                        raise FatalError(str(error)) from error
                    set_up_failure_count += isinstance(error, _SetUpError)
                    if set_up_failure_count == _SET_UP_TRIES:
                        text = f"the database cannot be set up, tried {_SET_UP_TRIES} times: {error}"
                        raise FatalError(text) from error
                    what = "database" if isinstance(error, StorageError) else "broker"
                    outage.failed(f"the {what} cannot be used yet", error)
                    if readiness is not None:
                        readiness.waits(f"the {what} cannot be used yet: {error}")
                    raise
    except (SchemaMismatchError, TopologyError, NotPermittedError) as error:
        raise FatalError(str(error)) from error
    outage.ended("database and broker can be used")


async def _prepare_once(configuration: WorkerConfiguration, *, sets_up: bool) -> None:
    storage = configuration.storage()
    await asyncio.to_thread(storage.open)
    try:
        session = await open_session(configuration.parameters, _NAME)
        try:
            if sets_up:
                await _set_up_database(configuration, storage, session)
                await _declare(configuration, session)
            else:
                await _check_database(configuration, storage)
                await _declare_or_check(configuration, session)
        finally:
            await session.close()
    finally:
        await asyncio.to_thread(storage.close)


async def _declare(configuration: WorkerConfiguration, session: AmqpSession) -> None:
    await declare_topology(session, configuration.policy, configuration.settings)
    await check_topology(session, configuration.policy)


async def _declare_or_check(configuration: WorkerConfiguration, session: AmqpSession) -> None:
    try:
        await _declare(configuration, session)
    except NotPermittedError:
        # The broker closed the channel, and the session went with it.
        checking = await open_session(configuration.parameters, _NAME)
        try:
            await check_topology(checking, configuration.policy)
            _check_complete(await inspect_topology(checking, configuration.policy, configuration.settings))
        finally:
            await checking.close()
        logger.info(
            "the broker's user may not declare exchanges and queues: they are used as they are",
            extra={"action": "broker.declare"},
        )


def _check_complete(found: TopologyReport) -> None:
    # Arguments cannot be compared without the right to declare.
    absent = [f"queue {name}" for name in found.missing]
    absent += [f"exchange {exchange} ({fault})" for exchange, fault in found.exchanges.items()]
    if absent:
        raise MissingTopologyError(
            f"on the broker {', '.join(absent[:_NAMED_COUNT])} cannot be used: run `provgate-workers setup` as a user"
            " that may declare",
            partial=True,
        )


async def _check_database(configuration: WorkerConfiguration, storage: LocalStorage) -> None:
    counts = _counts(configuration.policy)
    recorded = await asyncio.to_thread(storage.recorded_range_counts)
    # MongoDB's set-up writes them last.
    if not recorded:
        # Of several programs that see it empty one is first; the others have its counts, or fail here.
        await _set_up_schema(storage, counts)
        logger.info("the database was empty: it is set up", extra={"action": "storage.setup"})
    elif recorded != counts:
        raise FatalError(_difference(recorded, counts))
    await asyncio.to_thread(storage.check, counts)


async def _set_up_database(configuration: WorkerConfiguration, storage: LocalStorage, session: AmqpSession) -> None:
    counts = _counts(configuration.policy)
    recorded = await asyncio.to_thread(storage.recorded_range_counts)
    if not recorded or recorded == counts:
        await _set_up_schema(storage, counts)
        return
    await asyncio.to_thread(storage.check, None)
    await remove_outgrown_queues(session, RangePolicy.of(recorded), configuration.policy)
    await asyncio.to_thread(storage.replace_range_counts, counts)


async def _set_up_schema(storage: LocalStorage, counts: Mapping[str, int]) -> None:
    try:
        await asyncio.to_thread(storage.setup, counts)
    except StorageForbiddenError as error:
        raise StorageForbiddenError(
            f"{error}: run `provgate-workers setup` as a user that may create tables"
        ) from error
    except RetryableStorageError as error:
        raise _SetUpError(str(error)) from error


class _SetUpError(RetryableStorageError):
    """The database can be reached, and its set-up failed. Each try keeps writers waiting: the tries are bounded."""


def _counts(policy: RangePolicy) -> dict[str, int]:
    return {exchange.value: count for exchange, count in policy.counts.items()}


def _difference(recorded: Mapping[str, int], counts: Mapping[str, int]) -> str:
    differences = [
        f"{PATH}.ranges.{name} is {count}, and the database was set up with {recorded.get(name)}"
        for name, count in counts.items()
        if recorded.get(name) != count
    ]
    return (
        f"{'; '.join(differences)}: set it to what the database has; or stop gateways and workers, and run"
        " `provgate-workers setup` to change it"
    )
