"""What a worker does with a delivery: takes it, defers it, or settles it unseen."""

from __future__ import annotations

from dataclasses import dataclass

from provgate_broker.consume.delivery import Delivery
from provgate_broker.dead_letters.messages import DeadLetterReason
from provgate_workers.package import Quarantined, Refused


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """Limits on the packages that are stored in batches.

    Attributes:
        package_max_bytes: the largest body that is decoded.
        poison_after: the most redeliveries after which a package is still stored together with others.
    """

    package_max_bytes: int
    poison_after: int

    def decide(self, delivery: Delivery) -> Refused | Quarantined | None:
        """Returns the outcome of a delivery that is not to be stored; None if it is."""
        if (refused := self.refusal_of_size(delivery)) is not None:
            return refused
        return Quarantined() if delivery.redelivery_count > self.poison_after else None

    def refusal_of_size(self, delivery: Delivery) -> Refused | None:
        """Returns the refusal of a body that is too large to be decoded; None for any other."""
        size_bytes = len(delivery.body)
        if size_bytes <= self.package_max_bytes:
            return None
        text = f"the body has {size_bytes} bytes: more than package_max_bytes, {self.package_max_bytes}"
        return Refused(DeadLetterReason.MALFORMED, text)
