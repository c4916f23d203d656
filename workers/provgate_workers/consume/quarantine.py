"""Handles packages that may kill their worker: one at a time, with nothing else in hand that could be to blame."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from contextlib import suppress
from typing import Final

from provgate_broker.consume.delivery import DELIVERY_COUNT_HEADER, Delivery
from provgate_broker.consume.work_consumer import Getter
from provgate_broker.dead_letters.messages import ID_HEADER, DeadLetterReason, source_of
from provgate_broker.errors import ConnectionLostError, TopologyError
from provgate_broker.topology.declaration import QUARANTINE_QUEUE
from provgate_workers.consume.delivery_policy import DeliveryPolicy
from provgate_workers.package import Outcome, Package, Quarantined, Refused
from provgate_workers.settle.settlement import Settlement
from provgate_workers.store.batch_scheduler import ALONE_S, BatchScheduler
from provgate_workers.store.circuit_breaker import CircuitBreaker, is_of_operation

logger = logging.getLogger(__name__)

# How often a process checks for packages that others quarantined. The one that quarantines a package checks at once.
CHECK_MIN_S: Final = 8.0
CHECK_MAX_S: Final = 12.0

# The rest of the quarantine after everything else waited in vain for one of its packages: nine times as long as they
# waited, and a minute at least.
_REST_TIMES: Final = 9
_REST_MIN_S: Final = 60.0

# How many handled packages are remembered, in case their delivery acks were lost with a connection.
_REMEMBERED_COUNT: Final = 1000

# Two names of at most 255 bytes and a token. Longer ones are not from a worker.
_KEY_MAX_LENGTH: Final = 600


class QuarantineWorker:
    """Handles the packages in quarantine. Belongs to one event loop.

    A package is taken when nothing else is being stored, and nothing is stored beside it. One that comes with a
    delivery before it is one that a program did not survive: it becomes a dead letter. A process that lost its
    connection remembers which packages it survived, and that one which it never saw may have been on its way to it. A
    process that was killed for another reason remembers nothing: a harmless package then becomes a dead letter, though
    it may be stored, and an operator can replay it.

    Args:
        getter: takes packages from the quarantine queue.
        scheduler: stores a package while nothing else is stored.
        breaker: says whether the storage can be written to.
        settlement: settles the packages.
        policy: refuses packages that are too large.
    """

    def __init__(
        self,
        getter: Getter,
        scheduler: BatchScheduler,
        breaker: CircuitBreaker,
        settlement: Settlement,
        policy: DeliveryPolicy,
    ) -> None:
        self._getter = getter
        self._scheduler = scheduler
        self._breaker = breaker
        self._settlement = settlement
        self._policy = policy
        self._survived: deque[str] = deque(maxlen=_REMEMBERED_COUNT)
        self._lost_unseen = False
        self._wakened = asyncio.Event()
        self._rests_until_s = 0.0

    def wake(self) -> None:
        """Checks for packages soon: one was quarantined, or there is a new connection."""
        self._wakened.set()

    async def run(self) -> None:
        """Checks for packages now and then, until it is cancelled."""
        while True:
            try:
                while self._may_store and await self._getter.message_count(QUARANTINE_QUEUE):
                    async with self._scheduler.alone():
                        # The last of the batches that were waited for may have ended in trouble.
                        if self._may_store:
                            await self._handle_next()
            except (ConnectionLostError, TimeoutError) as error:
                if isinstance(error, TimeoutError):
                    self._rest(ALONE_S)
                logger.debug(
                    "the quarantine is not checked: %r",
                    error,
                    extra={"action": "quarantine.wait", "reason": str(error)},
                )
            with suppress(TimeoutError):
                async with asyncio.timeout(random.uniform(CHECK_MIN_S, CHECK_MAX_S)):
                    await self._wakened.wait()
            self._wakened.clear()

    @property
    def _may_store(self) -> bool:
        # Also while a write decides whether others start: this may be the only package to try. Not while an operation
        # is stalled, since everything else would wait for it.
        is_rested = asyncio.get_running_loop().time() >= self._rests_until_s
        return is_rested and self._breaker.allows(0) and not self._scheduler.stalled_count

    def _rest(self, waited_s: float) -> None:
        pause_s = max(_REST_MIN_S, _REST_TIMES * waited_s)
        self._rests_until_s = asyncio.get_running_loop().time() + pause_s

    async def _handle_next(self) -> None:
        try:
            delivery = await self._getter.get(QUARANTINE_QUEUE)
        except ConnectionLostError:
            self._lost_unseen = True
            raise
        if delivery is None:
            return
        package = Package.of(delivery, source_of(delivery))
        key = f"{package.source} {delivery.headers.get(ID_HEADER)}"[:_KEY_MAX_LENGTH]
        if _was_tried(delivery) and key not in self._survived:
            outcome: Outcome = Refused(
                DeadLetterReason.POISON, "a program ended while it handled this package and nothing else"
            )
            if self._lost_unseen:
                self._lost_unseen = False
                outcome = Quarantined()
        else:
            # First of all: a process that reads this again has survived what comes now.
            self._survived.append(key)
            outcome = self._policy.refusal_of_size(delivery) or await self._store(package)
        self._settlement.settle(package, outcome)

    async def _store(self, package: Package) -> Outcome:
        """Stores a package alone. It is quarantined as a new copy if it is to be tried again.

        Requeued as it is, it would be taken for a killer.
        """
        loop = asyncio.get_running_loop()
        began_at_s = loop.time()
        try:
            report = await self._scheduler.store_alone(package)
        except TopologyError as error:
            return Refused(DeadLetterReason.MALFORMED, str(error))
        if is_of_operation(report.trouble):
            self._rest(loop.time() - began_at_s)
        self._breaker.note(report.trouble)
        return report.outcomes[0] or Quarantined()


def _was_tried(delivery: Delivery) -> bool:
    """Returns whether some program had a package of the quarantine before, and nothing else in hand."""
    return delivery.redelivered or delivery.headers.get(DELIVERY_COUNT_HEADER) not in (None, 0)
