"""A package in a worker process: the states it passes, and how its handling can end.

    WAITING --> STORING --stored-----------------> REPLYING --reply confirmed--> ACKED
       |  ^-------+  |                                ^
       |  try again  +--refused--+                    | nack, if the sender understands one
       |                         v                    |
       +--too large, -------> COPYING --copy confirmed+--otherwise-------------> ACKED
          redelivered too often

`settle/settlement.py` makes every step from STORING to ACKED and sends the delivery ack. A delivery that finds no
memory is deferred (`consume/memory_budget.py`) and never becomes a package here. A package whose channel is lost
belongs to the broker again: what was begun with it goes on, and its delivery ack has no effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

from provgate_broker.consume.delivery import Delivery
from provgate_broker.dead_letters.messages import DeadLetterReason, Source
from provgate_broker.wire.package import claimed_row_count


class State(Enum):
    """Where a package is between its delivery and its delivery ack.

    Attributes:
        WAITING: in memory, for its turn to be stored.
        STORING: in a batch, or paused before it is tried again alone.
        COPYING: its copy for the dead letters or the quarantine is not confirmed yet.
        REPLYING: its rows are committed, or its dead letter is safe; the reply is not confirmed yet.
        ACKED: the broker may forget it.
    """

    WAITING = auto()
    STORING = auto()
    COPYING = auto()
    REPLYING = auto()
    ACKED = auto()


@dataclass(frozen=True, slots=True)
class Stored:
    """Its rows are committed.

    Attributes:
        row_count: its rows, duplicates included.
    """

    row_count: int


@dataclass(frozen=True, slots=True)
class Refused:
    """It can never be stored: it becomes a dead letter."""

    reason: DeadLetterReason
    message: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    """It was redelivered too often: it is handled alone, from the quarantine queue."""


Outcome: TypeAlias = Stored | Refused | Quarantined
"""How the handling of a package ends. None in place of an outcome: it is to be tried again."""


@dataclass(eq=False, slots=True)
class Package:
    """A package that this process handles.

    Attributes:
        delivery: as the broker delivered it.
        source: the exchange and routing key that it was first published to.
        row_count: its rows as its body claims, at least 1: a body that cannot be read is work too.
        state: where it is.
        outcome: how its handling ended; None while it waits or is stored.
    """

    delivery: Delivery
    source: Source
    row_count: int
    state: State = State.WAITING
    outcome: Outcome | None = None

    @classmethod
    def of(cls, delivery: Delivery, source: Source) -> Package:
        """Returns the package of a delivery."""
        return cls(delivery, source, max(1, claimed_row_count(delivery.body)))
