"""Packages that came while there was no place for them."""

from __future__ import annotations

from dataclasses import replace

from provgate_broker.delivery import Delivery


class TurnedAway:
    """Keeps packages that are to go back to their queues, without their bodies, until their queues send no more.

    Given back at once, they would come again at once, a few times each before the broker has cancelled the consumer;
    and the broker counts that as it counts the deaths of programs that handled them. What is kept takes room in the
    prefetch window of its queue, so that no more than that can come. Belongs to one event loop.
    """

    def __init__(self) -> None:
        self._kept: dict[str, list[Delivery]] = {}

    def keep(self, delivery: Delivery) -> None:
        """Keeps a package, without its body."""
        self._kept.setdefault(delivery.queue, []).append(replace(delivery, body=b""))

    def give_back(self, queue: str) -> None:
        """Gives the packages of a queue back to the broker."""
        for delivery in self._kept.pop(queue, []):
            delivery.requeue()

    def forget(self, queue: str) -> None:
        """Forgets the packages of a queue: the broker has taken them back."""
        self._kept.pop(queue, None)
