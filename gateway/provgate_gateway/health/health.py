"""The standard health service, true about broker and storage.

| service | SERVING while |
|---|---|
| "" and provgate.v1.ProvenanceStorage | all that the gateway needs is reachable |
| provgate.broker | the broker is |
| provgate.storage | the local storage is; never where there is none |
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

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


class HealthServicer(health.aio.HealthServicer):  # type: ignore[misc]  # it has no types
    """That of gRPC, but for `List`: there it would raise, and fill the log with tracebacks for whoever calls."""

    async def List(self, request: health_pb2.HealthListRequest, context: Any) -> None:  # noqa: N802  # as in the proto
        """Says that there is no such call."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "use Check or Watch")


class HealthWatch:
    """Watches broker and storage, and sets the statuses of a health servicer. Belongs to one event loop.

    Args:
        servicer: whose statuses are set.
        storage: what is probed; None where there is none.
        policy: the range counts that the storage must record.
        broker_connected: tells whether the broker is reachable.
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
        self._told: dict[str, bool] = {}
        self._asked: asyncio.Future[None] | None = None
        self._outage = Outage(logger, action="storage.probe")
        self._storage_problem: str | None = "not asked yet"

    def conditions(self) -> list[Condition]:
        """Returns whether the storage can be reached, where there is one; on any thread."""
        return [] if self._storage is None else [Condition("storage", self._storage_problem)]

    def broker_changed(self) -> None:
        """Has the broker looked at now rather than at the next turn."""
        self._broker_changed.set()

    async def start(self) -> None:
        """Says NOT_SERVING until `run` knows better: the servicer would say SERVING by itself."""
        await self._tell(storage_reachable=False)

    async def run(self) -> None:
        """Watches until it is cancelled.

        Raises:
            SchemaMismatchError: the storage, reachable for the first time or again, is not the one that is expected.
        """
        storage_reachable = False
        while True:
            self._broker_changed.clear()
            if self._storage is not None:
                storage_reachable = await self._probe(self._storage)
            await self._tell(storage_reachable)
            try:
                async with asyncio.timeout(_PROBE_INTERVAL_S):
                    await self._broker_changed.wait()
            except TimeoutError:
                continue

    async def stop(self) -> None:
        """Says NOT_SERVING from now on."""
        await self._servicer.enter_graceful_shutdown()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _probe(self, storage: LocalStorage) -> bool:
        """Returns whether the storage answers. One that takes long does not, and is not asked again until it does."""
        if self._asked is None:
            # While it was away it may have become another one: restored, upgraded, set up with other range counts.
            was_reachable = self._told.get(STORAGE, False)
            probe = storage.probe if was_reachable else partial(_checked, storage, self._range_counts)
            self._asked = asyncio.get_running_loop().run_in_executor(self._thread, probe)
        answered, _ = await asyncio.wait({self._asked}, timeout=_PROBE_TIMEOUT_S)
        if not answered:
            self._note_problem(f"no answer within {_PROBE_TIMEOUT_S:.0f} s")
            return False
        asked, self._asked = self._asked, None
        try:
            asked.result()
        except (RetryableStorageError, NotSetUpError) as error:
            self._note_problem(str(error))
            return False
        self._storage_problem = None
        self._outage.ended("the storage can be used again")
        return True

    def _note_problem(self, problem: str) -> None:
        self._storage_problem = problem
        self._outage.failed("the storage cannot be used", problem)

    async def _tell(self, storage_reachable: bool) -> None:
        broker_connected = self._broker_connected()
        all_reachable = broker_connected and (storage_reachable or self._storage is None)
        statuses = {BROKER: broker_connected, STORAGE: storage_reachable, SERVICE: all_reachable, "": all_reachable}
        for service, serving in statuses.items():
            if self._told.get(service) is not serving:
                _log_change(service, "SERVING" if serving else "NOT_SERVING")
                status = health_pb2.HealthCheckResponse.SERVING if serving else _NOT_SERVING
                await self._servicer.set(service, status)
        self._told = statuses


def _log_change(service: str, status: str) -> None:
    extra = {"action": "health.change", "service": service, "status": status}
    logger.info("health of %s: %s", service or "the gateway", status, extra=extra)


def _checked(storage: LocalStorage, range_counts: Mapping[str, int]) -> None:
    # It is not open yet where it could not be reached when the gateway started.
    storage.open()
    storage.check(range_counts)


_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING
