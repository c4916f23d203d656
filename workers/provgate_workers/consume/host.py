"""Hosts the range workers of one process: one loop over everything that happens to their packages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final, TypeAlias, assert_never

from provgate_broker.consume.delivery import Delivery
from provgate_broker.consume.work_consumer import ConsumerEvent, Registered, Suspended, TakenBack, WorkConsumer
from provgate_broker.topology.policy import Operation, binding_key, exchange_of, operations_of, parse_binding_key
from provgate_workers.consume.delivery_policy import DeliveryPolicy
from provgate_workers.consume.memory_budget import MemoryBudget
from provgate_workers.consume.quarantine import QuarantineWorker
from provgate_workers.metrics import WorkerMetrics
from provgate_workers.package import Outcome, Package, Quarantined, State
from provgate_workers.program.assignment import Assignment
from provgate_workers.program.messages import ChildReport
from provgate_workers.settings import WorkerConfiguration
from provgate_workers.settle.outbox import MessageSafe, Outbox
from provgate_workers.settle.settlement import Settlement
from provgate_workers.store.batch import BatchReport, BatchStorage, StorageThreads
from provgate_workers.store.batch_scheduler import (
    STALLED_MAX_COUNT,
    Batch,
    BatchDone,
    BatchScheduler,
    SchedulerEvent,
    Wakeup,
)
from provgate_workers.store.circuit_breaker import BreakerEvent, CircuitBreaker, StorageAnswers, StorageAway

logger = logging.getLogger(__name__)

_REPLIES_OUT_S: Final = 5.0

# A requeued package is delivered again at once. Memory that it has not claimed by then is for others.
_RESERVATION_S: Final = 10.0

Event: TypeAlias = ConsumerEvent | SchedulerEvent | MessageSafe | BreakerEvent


class RangeHost:
    """Hosts the range workers of one process. Belongs to one event loop.

    The consumer, the storage threads, the outbox, the circuit breaker and timers put events into one queue. `_run_loop`
    takes them out, one by one; nothing else changes the state of a package, but for the quarantine, whose packages are
    handled alone.

    Args:
        configuration: of the program.
        assignment: the ranges of this process.
        storage: an open storage.
        name: of the process; the broker shows it for the connections.
        metrics: counts packages and what becomes of them.
        news: set once every queue is registered.
    """

    def __init__(
        self,
        configuration: WorkerConfiguration,
        assignment: Assignment,
        storage: BatchStorage,
        name: str,
        metrics: WorkerMetrics,
        news: asyncio.Event,
    ) -> None:
        settings = configuration.settings
        delays_s = _delays_s(assignment, settings.standby_delay_s)
        operations = {queue: parse_binding_key(queue)[0] for queue in delays_s}
        # Bounded by the prefetch count of each queue, and by what follows from a package.
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        emit = self._events.put_nowait
        self._news = news
        self._metrics = metrics
        self._metrics_of_queue = {queue: metrics.operations[operation] for queue, operation in operations.items()}
        self._unregistered = set(delays_s)
        self._stray_queues: set[str] = set()
        self._taking = False
        self._stopping = False
        self._bound_bytes = configuration.process_in_hand_bytes
        self._policy = DeliveryPolicy(settings.package_max_bytes, settings.poison_after)
        self._memory = MemoryBudget(self._bound_bytes, operations)
        self._consumer = WorkConsumer(
            configuration.parameters, f"{name} deliveries", delays_s, configuration.prefetch_count, emit
        )
        threads = StorageThreads(storage, configuration.policy, settings.storage_threads + STALLED_MAX_COUNT)
        self._breaker = CircuitBreaker(threads, settings.pause_limit_s, emit)
        self._scheduler = BatchScheduler(
            delays_s, threads, self._breaker, settings.storage_threads, configuration.batch_size, emit
        )
        self._outbox = Outbox(configuration.parameters, f"{name} replies", metrics.replies_dropped, emit)
        self._settlement = Settlement(self._outbox, metrics)
        self._quarantine = QuarantineWorker(
            self._consumer.getter, self._scheduler, self._breaker, self._settlement, self._policy
        )

    def report(self) -> ChildReport:
        """Sets the gauges, and returns how the process is."""
        connections = {"deliveries": self._consumer.connected, "replies": self._outbox.connected}
        lost = " or ".join(name for name, connected in connections.items() if not connected)
        self._metrics.show(
            delivering=connections["deliveries"],
            replying=connections["replies"],
            writing=self._breaker.problem is None,
            stalled_count=self._scheduler.stalled_count,
            in_hand_bytes=self._memory.held_bytes,
            bound_bytes=self._bound_bytes,
        )
        return ChildReport(
            registered=not self._unregistered,
            broker_problem=f"no connection for {lost}" if lost else None,
            storage_problem=self._breaker.problem,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set, then winds up: packages that wait go back to the broker.

        Raises:
            ExceptionGroup: an error that ends the program, `SchemaMismatchError` for example.
        """
        self._start_taking()
        async with asyncio.TaskGroup() as group:
            parts = (self._consumer, self._outbox, self._breaker, self._quarantine)
            runs = (self._run_loop(), self._expire_reservations(), *(part.run() for part in parts))
            tasks = [group.create_task(run) for run in runs]
            await stop.wait()
            await self._wind_up()
            for task in tasks:
                task.cancel()

    async def _run_loop(self) -> None:
        while True:
            self._handle(await self._events.get())
            # What came with the same read of a socket goes into the same batch.
            self._handle_waiting()
            if self._taking:
                for deferred in self._memory.requeues(asyncio.get_running_loop().time()):
                    deferred.requeue()
            self._scheduler.start_batches()
            if self._breaker.awaits_write and self._scheduler.is_idle:
                # Nothing waits that could be tried: the probe is enough.
                self._breaker.note(None)

    def _handle_waiting(self) -> None:
        while not self._events.empty():
            self._handle(self._events.get_nowait())

    def _handle(self, event: Event) -> None:  # noqa: C901  # one case an event
        match event:
            case Delivery():
                self._take(event)
            case BatchDone(batch, done):
                self._finish(batch, self._scheduler.finish(batch, done.result()))
            case MessageSafe(token):
                package = self._settlement.confirmed(token)
                if package is not None:
                    self._free(package)
            case Registered(queue):
                self._note_registered(queue)
            case Suspended(queue):
                # None of them would be delivered here again.
                for deferred in self._memory.drop_deferred(queue):
                    deferred.requeue()
            case TakenBack(queue):
                self._memory.drop_deferred(queue)
                for package in self._scheduler.drop(queue):
                    self._memory.free(package.delivery)
            case StorageAway() if not self._stopping:
                self._taking = False
                self._consumer.release()
            case StorageAnswers() if not (self._stopping or self._taking):
                self._start_taking()
            case Wakeup() | StorageAway() | StorageAnswers():
                # `_run_loop` starts what may start.
                pass
            case _:
                assert_never(event)

    def _note_registered(self, queue: str) -> None:
        # There is a connection, over which the quarantine can be checked.
        self._quarantine.wake()
        if queue in self._unregistered:
            self._unregistered.remove(queue)
            if not self._unregistered:
                self._news.set()

    def _take(self, delivery: Delivery) -> None:
        reserved = self._memory.claim_reservation(delivery)
        counted = self._metrics_of_queue[delivery.queue]
        counted.deliveries.inc()
        if delivery.redelivered and not reserved:
            counted.redeliveries.inc()
        if not self._taking:
            self._memory.defer(delivery)
        elif not self._memory.admit(delivery, reserved=reserved):
            counted.deferred.inc()
            self._memory.defer(delivery)
        else:
            package = Package.of(delivery, (delivery.exchange, delivery.routing_key))
            outcome = self._policy.decide(delivery)
            if outcome is None:
                self._scheduler.add(package)
            else:
                self._settle(package, outcome)

    def _finish(self, batch: Batch, report: BatchReport) -> None:
        counted = self._metrics.operations[batch.operation]
        counted.batch_rows.observe(batch.row_count)
        counted.batch_bytes.observe(sum(len(package.delivery.body) for package in batch.packages))
        self._note_strays(batch.operation, report.stray_row_counts)
        self._breaker.note(report.trouble)
        for package, outcome in zip(batch.packages, report.outcomes, strict=True):
            if outcome is not None:
                self._settle(package, outcome)
            elif not package.delivery.in_hand:
                self._memory.free(package.delivery)

    def _settle(self, package: Package, outcome: Outcome) -> None:
        self._settlement.settle(package, outcome)
        if package.state is State.ACKED:
            self._free(package)

    def _free(self, package: Package) -> None:
        # A package of the quarantine was never counted in.
        if package.delivery.queue in self._metrics_of_queue:
            self._memory.free(package.delivery)
            if isinstance(package.outcome, Quarantined):
                self._quarantine.wake()

    def _note_strays(self, operation: Operation, row_counts: Mapping[int, int]) -> None:
        for range_number, row_count in row_counts.items():
            self._metrics.stray_rows[exchange_of(operation)].inc(row_count)
            queue = binding_key(operation, range_number)
            if queue not in self._stray_queues:
                self._stray_queues.add(queue)
                extra = {"action": "rows.stray", "queue": queue}
                logger.warning("rows of other ranges come to queue %s; they are stored", queue, extra=extra)

    def _start_taking(self) -> None:
        self._taking = True
        self._consumer.register()

    async def _expire_reservations(self) -> None:
        while True:
            await asyncio.sleep(_RESERVATION_S)
            self._memory.expire_reservations(asyncio.get_running_loop().time() - _RESERVATION_S)
            self._events.put_nowait(Wakeup())

    async def _wind_up(self) -> None:
        """Stops in the order that loses nothing: no more packages, then no more batches, then replies and acks."""
        self._taking = False
        self._stopping = True
        self._consumer.suspend()
        await self._scheduler.stop()
        try:
            async with asyncio.timeout(_REPLIES_OUT_S):
                await self._outbox.drained()
                while not self._events.empty():
                    # A delivery ack follows a confirm, or a nack, which is sent and confirmed too.
                    self._handle_waiting()
                    await self._outbox.drained()
        except TimeoutError:
            logger.warning("not all replies went out", extra={"action": "workers.drain"})
        self._handle_waiting()
        self._settlement.ack_quarantine()


def _delays_s(assignment: Assignment, standby_delay_s: float) -> dict[str, float]:
    """Returns the work queues of an assignment, with the time that each is left to other programs."""
    delays_s = dict.fromkeys(assignment.preferred, 0.0) | dict.fromkeys(assignment.standby, standby_delay_s)
    return {
        binding_key(operation, hosted.number): delay_s
        for hosted, delay_s in delays_s.items()
        for operation in operations_of(hosted.exchange)
    }
