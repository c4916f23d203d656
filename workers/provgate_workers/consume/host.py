"""The range workers of one process, and what connects them to broker and storage."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from provgate_broker.consume.delivery import Delivery
from provgate_broker.consume.work_consumer import WorkConsumer
from provgate_broker.topology.policy import Operation, binding_key, exchange_of, operations_of, parse_binding_key
from provgate_workers.consume.memory_budget import MemoryBudget
from provgate_workers.consume.quarantine import QuarantineWorker
from provgate_workers.consume.range_queues import RangeWorker
from provgate_workers.metrics import WorkerMetrics
from provgate_workers.program.assignment import Assignment
from provgate_workers.program.child_order import ChildReport
from provgate_workers.settings import WorkerConfiguration
from provgate_workers.settle.outbox import Outbox
from provgate_workers.settle.settlement import Settlement
from provgate_workers.store.batch import BatchReport, refusal_of_size
from provgate_workers.store.batch_scheduler import Batch, BatchStorage, BatchWriter, is_of_operation
from provgate_workers.store.circuit_breaker import StorageGate
from provgate_workers.store.recovery import StorageRecovery

logger = logging.getLogger(__name__)

_REPLIES_OUT_S: Final = 5.0

# A deferred package comes again at once where it does: what it was promised is for others after so long.
_PROMISE_S: Final = 10.0


class RangeHost:
    """Hosts the range workers of one process. Belongs to one event loop.

    Args:
        configuration: of the program.
        assignment: the ranges of this process.
        storage: an open storage.
        name: what the broker shows for the connections.
        metrics: counts what comes and what becomes of it.
        on_ready: is called once, when every queue has been registered for.
    """

    def __init__(
        self,
        configuration: WorkerConfiguration,
        assignment: Assignment,
        storage: BatchStorage,
        name: str,
        metrics: WorkerMetrics,
        on_ready: Callable[[], None],
    ) -> None:
        settings = configuration.settings
        self._poison_after = settings.poison_after
        self._package_max_bytes = settings.package_max_bytes
        self._on_ready = on_ready
        self._metrics = metrics
        self._workers = _workers_by_queue(assignment)
        self._metrics_by_queue = {queue: metrics.operations[parse_binding_key(queue)[0]] for queue in self._workers}
        self._unregistered = set(self._workers)
        self._stray_row_counts: dict[str, int] = {}
        self._taking = False
        self._stopping = False
        self._bound_bytes = configuration.process_in_hand_bytes
        self._memory = MemoryBudget(self._bound_bytes, {queue: parse_binding_key(queue)[0] for queue in self._workers})
        self._gate = StorageGate()
        self._outbox = Outbox(configuration.parameters, f"{name} replies", metrics.replies_dropped.inc)
        self._settlement = Settlement(self._outbox, self._on_settled, metrics)
        self._consumer = WorkConsumer(
            configuration.parameters,
            f"{name} deliveries",
            self,
            _delays_s(assignment, settings.standby_delay_s),
            prefetch_count=configuration.prefetch_count,
        )
        self._writer = BatchWriter(
            storage,
            configuration.policy,
            self._gate,
            thread_count=settings.storage_threads,
            batch_size=configuration.batch_size,
            on_written=self._on_written,
        )
        self._recovery = StorageRecovery(
            self._gate, self._writer, settings.pause_limit_s, self._give_up, self._take_again
        )
        self._quarantine = QuarantineWorker(
            self._consumer.getter,
            self._writer,
            self._gate,
            self._recovery,
            self._settlement,
            settings.package_max_bytes,
        )

    def take_stock(self) -> ChildReport:
        """Shows in the metrics how it is now, and returns it."""
        links = {"deliveries": self._consumer.connected, "replies": self._outbox.connected}
        lost = " or ".join(name for name, connected in links.items() if not connected)
        self._metrics.show(
            delivering=links["deliveries"],
            replying=links["replies"],
            writing=self._gate.is_open,
            stalled_count=self._writer.stalled_count,
            in_hand_bytes=self._memory.held_bytes,
            bound_bytes=self._bound_bytes,
        )
        return ChildReport(
            registered=not self._unregistered,
            broker_problem=f"no connection for {lost}" if lost else None,
            storage_problem=self._gate.problem,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set; then takes no more packages, finishes what is being written, and returns.

        What waits then goes back to the broker.

        Raises:
            ExceptionGroup: something that ends the program, `SchemaMismatchError` for example.
        """
        self._take_again()
        async with asyncio.TaskGroup() as group:
            runs = (self._consumer.run(), self._outbox.run(), self._recovery.run(), self._quarantine.run())
            tasks = [group.create_task(run) for run in (*runs, self._break_promises(), self._wait_failed())]
            await stop.wait()
            await self._wind_up()
            for task in tasks:
                task.cancel()

    def registered(self, queue: str) -> None:
        """Notes that a queue is registered for: there is a connection, over which the quarantine can be looked into."""
        self._quarantine.look()
        if self._unregistered:
            self._unregistered.discard(queue)
            if not self._unregistered:
                self._on_ready()

    def delivered(self, delivery: Delivery) -> None:
        """Takes a package in hand, and decides what is done with it."""
        promised = self._memory.redeems(delivery)
        counted = self._metrics_by_queue[delivery.queue]
        counted.deliveries.inc()
        if delivery.redelivered and not promised:
            counted.redeliveries.inc()
        if not (self._taking and self._memory.admit(delivery, promised=promised)):
            counted.deferred.inc(self._taking)
            self._memory.defer(delivery)
            return
        source = (delivery.exchange, delivery.routing_key)
        refused = refusal_of_size(delivery.body, self._package_max_bytes)
        if refused is not None:
            self._settlement.settle(delivery, refused, source)
        elif delivery.redelivery_count > self._poison_after:
            self._settlement.quarantine(delivery, source, self._quarantine.look)
        else:
            worker = self._workers[delivery.queue]
            worker.add(delivery)
            self._writer.offer(worker)

    def suspended(self, queue: str) -> None:
        """Gives back what was deferred: it does not come here again."""
        for delivery in self._memory.take_deferred(queue):
            delivery.requeue()

    def taken_back(self, queue: str) -> None:
        """Forgets the packages of a queue that wait. Those that are being written are settled as ever, to no effect."""
        self._memory.take_deferred(queue)
        for delivery in self._workers[queue].drop(queue):
            self._memory.leave(delivery)
        self._grant_memory()

    async def _wait_failed(self) -> None:
        await self._writer.failed

    def _on_written(self, batch: Batch, report: BatchReport) -> None:
        counted = self._metrics.operations[batch.operation]
        counted.batch_rows.observe(batch.row_count)
        counted.batch_bytes.observe(batch.size_bytes)
        for delivery, outcome in zip(batch.deliveries, report.outcomes, strict=True):
            if outcome is not None:
                self._settlement.settle(delivery, outcome, (delivery.exchange, delivery.routing_key))
            elif not delivery.in_hand:
                self._on_settled(delivery)
        self._note_strays(batch.operation, report.stray_row_counts)
        if report.trouble is None or is_of_operation(report.trouble):
            self._gate.note_success()
        else:
            self._recovery.note_trouble(report.trouble)

    def _on_settled(self, delivery: Delivery) -> None:
        if delivery.queue not in self._workers:
            # It comes from quarantine, one at a time, and was never counted in.
            self._quarantine.settled(delivery)
            return
        self._memory.leave(delivery)
        self._grant_memory()

    def _grant_memory(self) -> None:
        if self._taking:
            for delivery in self._memory.grant(asyncio.get_running_loop().time()):
                delivery.requeue()

    async def _break_promises(self) -> None:
        while True:
            await asyncio.sleep(_PROMISE_S)
            self._memory.break_promises(asyncio.get_running_loop().time() - _PROMISE_S)
            self._grant_memory()

    def _note_strays(self, operation: Operation, row_counts: Mapping[int, int]) -> None:
        for range_number, row_count in row_counts.items():
            self._metrics.stray_rows[exchange_of(operation)].inc(row_count)
            queue = binding_key(operation, range_number)
            if queue not in self._stray_row_counts:
                extra = {"action": "rows.stray", "queue": queue}
                logger.warning("rows of other ranges come to queue %s; they are stored", queue, extra=extra)
            self._stray_row_counts[queue] = self._stray_row_counts.get(queue, 0) + row_count

    def _give_up(self) -> None:
        if self._stopping:
            return
        self._taking = False
        for queue in self._workers:
            self._consumer.release(queue)

    def _take_again(self) -> None:
        if self._stopping:
            return
        self._taking = True
        for queue in self._workers:
            self._consumer.register(queue)
        # What came before the ranges were released, if they have not been since.
        self._grant_memory()

    async def _wind_up(self) -> None:
        self._taking = False
        self._stopping = True
        for queue in self._workers:
            self._consumer.suspend(queue)
        await self._writer.stop()
        try:
            async with asyncio.timeout(_REPLIES_OUT_S):
                await self._outbox.drained()
        except TimeoutError:
            logger.warning("not all replies went out", extra={"action": "workers.drain"})
        self._quarantine.let_go()


def _workers_by_queue(assignment: Assignment) -> dict[str, RangeWorker]:
    workers: dict[str, RangeWorker] = {}
    for hosted in (*assignment.preferred, *assignment.standby):
        operations = {binding_key(operation, hosted.number): operation for operation in operations_of(hosted.exchange)}
        workers |= dict.fromkeys(operations, RangeWorker(hosted, operations))
    return workers


def _delays_s(assignment: Assignment, standby_delay_s: float) -> dict[str, float]:
    delays_s = dict.fromkeys(assignment.preferred, 0.0) | dict.fromkeys(assignment.standby, standby_delay_s)
    return {
        binding_key(operation, hosted.number): delay_s
        for hosted, delay_s in delays_s.items()
        for operation in operations_of(hosted.exchange)
    }
