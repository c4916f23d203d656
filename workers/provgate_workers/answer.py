"""Who is answered, and with what refusal: decisions that take values and return values."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from provgate_broker.aside import DeadLetterReason
from provgate_broker.delivery import Delivery
from provgate_broker.wire import NACK_HEADER, Nack, claimed_row_count

# Reply queues that the broker named, and those that somebody named so on purpose. The name of any other queue in a
# `reply_to` would have a worker write into whatever its sender likes: another range's queue, say.
_ANSWERED_PREFIXES: Final = ("amq.gen-", "provgate.reply.")

_NACK_MESSAGE_MAX_LENGTH: Final = 1000


class Answer(Enum):
    """Whether a sender is answered, and why not."""

    EXPECTED = auto()
    UNWANTED = auto()
    NO_CORRELATION_ID = auto()
    UNTRUSTED = auto()


def answer_of(delivery: Delivery) -> Answer:
    """Returns whether the sender of a package is answered."""
    if delivery.reply_to is None:
        return Answer.UNWANTED
    if not delivery.reply_to.startswith(_ANSWERED_PREFIXES):
        return Answer.UNTRUSTED
    if not delivery.correlation_id:
        return Answer.NO_CORRELATION_ID
    return Answer.EXPECTED


def understands_nack(delivery: Delivery) -> bool:
    """Returns whether the sender of a package understands a reply that refuses it."""
    return delivery.headers.get(NACK_HEADER) is True


def nack_of(delivery: Delivery, reason: DeadLetterReason, message: str) -> Nack:
    """Returns the reply that refuses a package.

    It counts no row of a poisonous one: the program that ended may have stored them before.
    """
    rejected_count = 0 if reason is DeadLetterReason.POISON else claimed_row_count(delivery.body)
    return Nack(reason.value, message[:_NACK_MESSAGE_MAX_LENGTH], rejected_count)
