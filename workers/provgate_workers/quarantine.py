"""Packages that may kill whoever handles them, handled one at a time with nothing else in hand that could be blamed."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from typing import Final

from provgate_broker.aside import DeadLetterReason, source_of
from provgate_broker.declaration import QUARANTINE_QUEUE
from provgate_broker.delivery import Delivery
from provgate_broker.errors import ConnectionLostError, TopologyError
from provgate_broker.getter import Getter
from provgate_broker.topology import parse_binding_key
from provgate_workers.batch import Outcome, Refused
from provgate_workers.course import was_tried
from provgate_workers.gate import StorageGate
from provgate_workers.recovery import StorageRecovery
from provgate_workers.settlement import Settlement
from provgate_workers.writer import BatchWriter

logger = logging.getLogger(__name__)

# How often a process looks for packages that others put there. Whoever puts one there looks at once.
_LOOK_MIN_S: Final = 8.0
_LOOK_MAX_S: Final = 12.0

# How many packages that were handled are remembered, in case their delivery acks were lost with a connection.
_REMEMBERED_COUNT: Final = 1000


class QuarantineWorker:
    """Handles the packages in quarantine. Belongs to one event loop.

    Each is taken when nothing else is being written, and none beside it: a package of that queue that comes with a
    delivery before is one that a program did not survive, and becomes a dead letter. A program that lost its connection
    meanwhile remembers that it did survive. One that was killed by something else in that moment does not: then a dead
    letter is made of a harmless package, and an operator may replay it.
    """

    def __init__(
        self,
        getter: Getter,
        writer: BatchWriter,
        gate: StorageGate,
        recovery: StorageRecovery,
        settlement: Settlement,
    ) -> None:
        self._getter = getter
        self._writer = writer
        self._gate = gate
        self._recovery = recovery
        self._settlement = settlement
        self._survived: deque[str] = deque(maxlen=_REMEMBERED_COUNT)
        self._wakened = asyncio.Event()

    def look(self) -> None:
        """Looks into the quarantine soon."""
        self._wakened.set()

    async def run(self) -> None:
        """Looks into the quarantine now and then, until it is cancelled."""
        while True:
            try:
                while self._gate.is_open and await self._getter.message_count(QUARANTINE_QUEUE):
                    await self._handle_next()
            except ConnectionLostError as error:
                logger.debug("no look into the quarantine: %s", error)
            await self._pause()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(random.uniform(_LOOK_MIN_S, _LOOK_MAX_S)):
                await self._wakened.wait()
        except TimeoutError:
            pass
        self._wakened.clear()

    async def _handle_next(self) -> None:
        async with self._writer.alone():
            delivery = await self._getter.get(QUARANTINE_QUEUE)
            if delivery is not None:
                await self._handle(delivery)

    async def _handle(self, delivery: Delivery) -> None:
        outcome = await self._outcome(delivery)
        if outcome is None:
            # As a new copy: the one in hand would be known for a killer if it went back as it is.
            self._settlement.quarantine(delivery, source_of(delivery), lambda: None)
        else:
            self._settlement.settle(delivery, outcome, source_of(delivery))

    async def _outcome(self, delivery: Delivery) -> Outcome:
        key = f"{source_of(delivery)} {delivery.headers.get('provgate-id')}"
        if was_tried(delivery) and key not in self._survived:
            return Refused(DeadLetterReason.POISON, "a program ended while it handled this package and nothing else")
        try:
            operation, range_number = parse_binding_key(source_of(delivery)[1])
        except TopologyError as error:
            return Refused(DeadLetterReason.MALFORMED, str(error))
        report = await self._writer.write(operation, range_number, delivery.body)
        self._survived.append(key)
        if report.trouble is not None:
            self._recovery.note_trouble(report.trouble)
        return report.outcomes[0]
