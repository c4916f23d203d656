"""Packages that the broker refused with a nack, and whether that is because their queue is full.

A nack has no reason. RabbitMQ sends one when a queue is at its length, and in other cases too: a queue whose process
ends, a limit of an operator's policy. Over AMQP it tells how many messages wait in a queue, not how many bytes: the
size of a package is taken from those that were published to the queue last. Only what waits counts toward a queue's
length (https://www.rabbitmq.com/docs/maxlength).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from provgate_broker.errors import ConnectionLostError
from provgate_broker.topology.declaration import QueueState
from provgate_gateway.publish.ledger import PackageOwner
from provgate_gateway.write.splitting import Package

# A full queue takes messages again below four fifths of its length, and the size of a package is an estimate.
_FULL_FROM: Final = 0.5

_ASK_TIMEOUT_S: Final = 2.0

# Of so many packages of a queue the latest makes one part of the mean size.
_MEAN_OVER_COUNT: Final = 16


class Nacks:
    """Tells calls of the packages that the broker refused. Belongs to one event loop.

    A queue is asked for once, however many of its packages are refused meanwhile; each call is told once.

    Args:
        ask: returns the state of a queue, None where there is none.
        queue_max_bytes: how much a queue holds; None where that is not known: behind another deployment's broker.
    """

    def __init__(self, ask: Callable[[str], Awaitable[QueueState | None]], queue_max_bytes: int | None) -> None:
        self._ask = ask
        self._queue_max_bytes = queue_max_bytes
        self._mean_bytes: dict[str, float] = {}
        self._refused: dict[str, dict[PackageOwner, Package]] = {}
        self._wakened = asyncio.Event()

    def note_published(self, package: Package) -> None:
        """Notes the size of a package that goes to its queue."""
        size_bytes = len(package.body)
        mean_bytes = self._mean_bytes.get(package.routing_key, size_bytes)
        self._mean_bytes[package.routing_key] = mean_bytes + (size_bytes - mean_bytes) / _MEAN_OVER_COUNT

    def add(self, package: Package, owner: PackageOwner) -> None:
        """Has a call told, soon, that one of its packages was refused."""
        self._refused.setdefault(package.routing_key, {})[owner] = package
        self._wakened.set()

    async def run(self) -> None:
        """Tells calls until it is cancelled."""
        while True:
            await self._wakened.wait()
            self._wakened.clear()
            for queue in list(self._refused):
                is_full = await self._is_full(queue)
                for owner, package in self._refused.pop(queue).items():
                    owner.nacked(package, queue_is_full=is_full)

    async def _is_full(self, queue: str) -> bool:
        if self._queue_max_bytes is None:
            return False
        try:
            async with asyncio.timeout(_ASK_TIMEOUT_S):
                state = await self._ask(queue)
        except (ConnectionLostError, TimeoutError):
            return False
        waiting_count = 0 if state is None else state.message_count
        return waiting_count * self._mean_bytes.get(queue, 0.0) >= _FULL_FROM * self._queue_max_bytes
