"""Packages that may kill whoever handles them, handled one at a time with nothing else in hand that could be blamed."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from typing import Final

from provgate_broker.consume.delivery import DELIVERY_COUNT_HEADER, Delivery
from provgate_broker.consume.work_consumer import Getter
from provgate_broker.dead_letters.messages import ID_HEADER, DeadLetterReason, source_of
from provgate_broker.errors import ConnectionLostError, TopologyError
from provgate_broker.topology.declaration import QUARANTINE_QUEUE
from provgate_broker.topology.policy import parse_binding_key
from provgate_workers.settle.settlement import Settlement
from provgate_workers.store.batch import Outcome, Refused, Stored, refusal_of_size
from provgate_workers.store.batch_scheduler import ALONE_S, BatchWriter, is_of_operation
from provgate_workers.store.circuit_breaker import StorageGate
from provgate_workers.store.recovery import StorageRecovery

logger = logging.getLogger(__name__)

# How often a process looks for packages that others put there. Whoever puts one there looks at once.
_LOOK_MIN_S: Final = 8.0
_LOOK_MAX_S: Final = 12.0

# How long no package of the quarantine is tried after one for which everything else waited in vain: so many times as
# long as that, and no less than so long.
_REST_TIMES: Final = 9
_REST_MIN_S: Final = 60.0

# How many packages that were handled are remembered, in case their delivery acks were lost with a connection.
_REMEMBERED_COUNT: Final = 1000

# Two names of 255 bytes at most and a token of ours; longer ones are a stranger's.
_KEY_MAX_LENGTH: Final = 600


class QuarantineWorker:
    """Handles the packages in quarantine. Belongs to one event loop.

    Each is taken when nothing else is being written, and none beside it: a package of that queue that comes with a
    delivery before is one that a program did not survive, and becomes a dead letter. A program that lost its connection
    meanwhile remembers that it did survive, and that one which it never saw may have been on its way to it. One that
    was killed by something else in that moment remembers nothing: then a dead letter is made of a harmless package,
    which may even be stored, and an operator may replay it.
    """

    def __init__(
        self,
        getter: Getter,
        writer: BatchWriter,
        gate: StorageGate,
        recovery: StorageRecovery,
        settlement: Settlement,
        package_max_bytes: int,
    ) -> None:
        self._getter = getter
        self._writer = writer
        self._gate = gate
        self._recovery = recovery
        self._settlement = settlement
        self._package_max_bytes = package_max_bytes
        self._survived: deque[str] = deque(maxlen=_REMEMBERED_COUNT)
        self._lost_unseen = False
        self._committed: set[Delivery] = set()
        self._wakened = asyncio.Event()
        self._rests_until = 0.0

    def look(self) -> None:
        """Looks into the quarantine soon."""
        self._wakened.set()

    async def run(self) -> None:
        """Looks into the quarantine now and then, until it is cancelled."""
        while True:
            try:
                while self._may_write and await self._getter.message_count(QUARANTINE_QUEUE):
                    await self._handle_next()
            except (ConnectionLostError, TimeoutError) as error:
                if isinstance(error, TimeoutError):
                    self._rest(ALONE_S)
                logger.debug(
                    "no look into the quarantine: %r",
                    error,
                    extra={"action": "quarantine.look", "reason": str(error)},
                )
            await self._pause()

    def settled(self, delivery: Delivery) -> None:
        """Notes that a package of the quarantine is not in hand any more."""
        self._committed.discard(delivery)

    def let_go(self) -> None:
        """Acks what is committed and still waits for its reply to go out: the program ends now.

        The next holder would take it for poison, since nobody tells it that this program survived. That costs the
        reply. A package of a work queue is not let go so: it is stored again, and answered then.
        """
        for delivery in self._committed:
            delivery.ack()
        self._committed.clear()

    @property
    def _may_write(self) -> bool:
        # On trial too: this may be the only package that there is to try. Not while a write stalls, which everything
        # else would wait for.
        is_rested = asyncio.get_running_loop().time() >= self._rests_until
        return is_rested and self._gate.admits(0) and not self._writer.stalled_count

    def _rest(self, waited_s: float) -> None:
        pause_s = max(_REST_MIN_S, _REST_TIMES * waited_s)
        self._rests_until = asyncio.get_running_loop().time() + pause_s

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(random.uniform(_LOOK_MIN_S, _LOOK_MAX_S)):
                await self._wakened.wait()
        except TimeoutError:
            pass
        self._wakened.clear()

    async def _handle_next(self) -> None:
        async with self._writer.alone():
            # The last of the writes that were waited for may have closed it.
            if not self._may_write:
                return
            delivery = await self._next()
            if delivery is not None:
                await self._handle(delivery)

    async def _next(self) -> Delivery | None:
        try:
            return await self._getter.get(QUARANTINE_QUEUE)
        except ConnectionLostError:
            self._lost_unseen = True
            raise

    async def _handle(self, delivery: Delivery) -> None:
        outcome = await self._outcome(delivery)
        if outcome is None:
            # As a new copy: the one in hand would be known for a killer if it went back as it is.
            self._settlement.quarantine(delivery, source_of(delivery), lambda: None)
        else:
            if isinstance(outcome, Stored):
                self._committed.add(delivery)
            self._settlement.settle(delivery, outcome, source_of(delivery))

    async def _outcome(self, delivery: Delivery) -> Outcome:
        key = f"{source_of(delivery)} {delivery.headers.get(ID_HEADER)}"[:_KEY_MAX_LENGTH]
        if _was_tried(delivery) and key not in self._survived:
            if self._lost_unseen:
                self._lost_unseen = False
                return None
            return Refused(DeadLetterReason.POISON, "a program ended while it handled this package and nothing else")
        # Before anything else: whoever reads this again has survived whatever comes now.
        self._survived.append(key)
        try:
            operation, range_number = parse_binding_key(source_of(delivery)[1])
        except TopologyError as error:
            return Refused(DeadLetterReason.MALFORMED, str(error))
        refused = refusal_of_size(delivery.body, self._package_max_bytes)
        if refused is not None:
            return refused
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        report = await self._writer.write(operation, range_number, delivery.body)
        if is_of_operation(report.trouble):
            self._rest(loop.time() - began_at)
            self._gate.note_success()
        elif report.trouble is None:
            self._gate.note_success()
        else:
            self._recovery.note_trouble(report.trouble)
        return report.outcomes[0]


def _was_tried(delivery: Delivery) -> bool:
    """Returns whether a package from quarantine was in some program's hands before, when it was the only one there."""
    return delivery.redelivered or delivery.headers.get(DELIVERY_COUNT_HEADER) not in (None, 0)
