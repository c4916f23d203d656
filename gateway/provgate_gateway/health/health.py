"""Whether the gateway can work: the gRPC health service, and the conditions of /readyz.

| gRPC service | SERVING while |
|---|---|
| "" and provgate.v1.ProvenanceStorage | broker and local storage can be reached |
| provgate.broker | the broker can be reached |
| provgate.storage | the local storage can be reached; never if there is none |
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeAlias

import grpc
from grpc_health.v1 import health, health_pb2

from provgate_broker.topology.policy import RangePolicy
from provgate_runtime.outage import Outage
from provgate_runtime.watch.conditions import Condition
from provgate_storage.database.local import LocalStorage
from provgate_storage.errors import NotSetUpError, RetryableStorageError

logger = logging.getLogger(__name__)

SERVICE: Final = "provgate.v1.ProvenanceStorage"
BROKER: Final = "provgate.broker"
STORAGE: Final = "provgate.storage"

_PROBE_INTERVAL_S: Final = 2.0
_PROBE_TIMEOUT_S: Final = 5.0

ConditionSource: TypeAlias = Callable[[], Sequence[Condition]]
"""Returns conditions as they are known now, without waiting. Called often, on any thread."""


class Readiness:
    """The conditions of /readyz: those that were set by name, and those of sources. Thread-safe.

    A source's condition replaces a set one of the same name: it was set before that part of the gateway existed.
    """

    def __init__(self) -> None:
        self._set: dict[str, Condition] = {}
        self._sources: tuple[ConditionSource, ...] = ()

    def set(self, name: str, problem: str | None = None) -> None:
        """Sets a condition; None as the problem says that it holds."""
        # Replaced as a whole, for readers on other threads.
        self._set = self._set | {name: Condition(name, problem)}

    def add(self, source: ConditionSource) -> None:
        """Adds a source."""
        self._sources = (*self._sources, source)

    def conditions(self) -> list[Condition]:
        """Returns all conditions, each name once."""
        found = dict(self._set)
        for source in self._sources:
            found |= {condition.name: condition for condition in source()}
        return list(found.values())


class HealthServicer(health.aio.HealthServicer):  # type: ignore[misc]  # it has no types
    """gRPC's health service, with a `List` that does not raise and log a traceback."""

    async def List(  # noqa: N802  # the name in the proto
        self, request: health_pb2.HealthListRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> None:
        """Aborts with UNIMPLEMENTED."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "use Check or Watch")


class HealthWatch:
    """Watches broker and storage, and sets the statuses of the health service. Belongs to one event loop.

    Args:
        servicer: the health service.
        storage: the local storage, which is probed; None if there is none.
        policy: the range counts that the storage must have recorded.
        broker_connected: returns whether the broker can be reached.
    """

    def __init__(
        self,
        servicer: health.aio.HealthServicer,
        storage: LocalStorage | None,
        policy: RangePolicy,
        broker_connected: Callable[[], bool],
    ) -> None:
        self._servicer = servicer
        self._storage = storage
        self._range_counts = {exchange.value: count for exchange, count in policy.counts.items()}
        self._broker_connected = broker_connected
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="storage-probe")
        self._broker_changed = asyncio.Event()
        self._serving: dict[str, bool] = {}
        self._probe: asyncio.Future[None] | None = None
        self._outage = Outage(logger, action="storage.probe")
        self._storage_problem: str | None = "not asked yet"

    def conditions(self) -> list[Condition]:
        """Returns whether the storage can be reached, if there is one; on any thread."""
        return [] if self._storage is None else [Condition("storage", self._storage_problem)]

    def broker_changed(self) -> None:
        """Makes `run` check the broker at once."""
        self._broker_changed.set()

    async def start(self) -> None:
        """Sets NOT_SERVING until `run` has checked: the servicer's own default is SERVING."""
        await self._set_statuses(storage_reachable=False)

    async def run(self) -> None:
        """Watches until it is cancelled.

        Raises:
            SchemaMismatchError: the storage, when it is first reached or reached again, has another schema or other
                range counts.
        """
        storage_reachable = False
        while True:
            self._broker_changed.clear()
            if self._storage is not None:
                storage_reachable = await self._probe_storage(self._storage)
            await self._set_statuses(storage_reachable)
            try:
                async with asyncio.timeout(_PROBE_INTERVAL_S):
                    await self._broker_changed.wait()
            except TimeoutError:
                continue

    async def stop(self) -> None:
        """Sets NOT_SERVING for good."""
        await self._servicer.enter_graceful_shutdown()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _probe_storage(self, storage: LocalStorage) -> bool:
        """Returns whether the storage answers in time. A probe that takes longer goes on, and no other one starts."""
        if self._probe is None:
            # While it was away it may have been restored, upgraded, or set up with other range counts.
            was_reachable = self._serving.get(STORAGE, False)
            probe = storage.probe if was_reachable else partial(_open_and_check, storage, self._range_counts)
            self._probe = asyncio.get_running_loop().run_in_executor(self._thread, probe)
        answered, _ = await asyncio.wait({self._probe}, timeout=_PROBE_TIMEOUT_S)
        problem = f"no answer within {_PROBE_TIMEOUT_S:.0f} s"
        if answered:
            done, self._probe = self._probe, None
            try:
                done.result()
            except (RetryableStorageError, NotSetUpError) as error:
                problem = str(error)
            else:
                self._storage_problem = None
                self._outage.ended("the storage can be used again")
                return True
        self._storage_problem = problem
        self._outage.failed("the storage cannot be used", problem)
        return False

    async def _set_statuses(self, storage_reachable: bool) -> None:
        broker_connected = self._broker_connected()
        all_reachable = broker_connected and (storage_reachable or self._storage is None)
        serving = {BROKER: broker_connected, STORAGE: storage_reachable, SERVICE: all_reachable, "": all_reachable}
        for service, is_serving in serving.items():
            if self._serving.get(service) is is_serving:
                continue
            status = "SERVING" if is_serving else "NOT_SERVING"
            extra = {"action": "health.change", "service": service, "status": status}
            logger.info("health of %s: %s", service or "the gateway", status, extra=extra)
            await self._servicer.set(service, health_pb2.HealthCheckResponse.ServingStatus.Value(status))
        self._serving = serving


def _open_and_check(storage: LocalStorage, range_counts: Mapping[str, int]) -> None:
    # It is not open if it could not be reached when the gateway started.
    storage.open()
    storage.check(range_counts)
