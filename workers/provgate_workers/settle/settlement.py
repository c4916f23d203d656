"""What follows for a package from what became of it, in the order that loses nothing: reply or dead letter, ack."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import Final
from uuid import uuid4

from provgate_broker.consume.delivery import Delivery
from provgate_broker.dead_letters.messages import DeadLetterReason, Source, dead_letter, quarantined
from provgate_broker.publish.publisher import Message
from provgate_broker.wire.package import CONTENT_TYPE, NACK_HEADER, Nack, Reply, claimed_row_count, encode_reply
from provgate_workers.metrics import ReplyKind, WorkerMetrics
from provgate_workers.settle.outbox import Outbox
from provgate_workers.store.batch import Refused, Stored

logger = logging.getLogger(__name__)

_INTERVAL_S: Final = 60.0


class RareWarning:
    """Logs a text once a minute at most, with how often there was cause for it. Belongs to one thread."""

    def __init__(self, logger: logging.Logger, text: str, *, action: str) -> None:
        self._logger = logger
        self._text = text
        self._action = action
        self._count = 0
        self._silent_until = 0.0

    def warn(self) -> None:
        """Counts a cause, and logs where the last time is long enough ago."""
        self._count += 1
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + _INTERVAL_S
            fields = {"count": self._count}
            self._logger.warning("%s (%d so far)", self._text, self._count, extra={"action": self._action, **fields})


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


_UNANSWERED: Final = {
    Answer.NO_CORRELATION_ID: "a package without correlation id is stored and not answered",
    Answer.UNTRUSTED: "a package is stored and not answered: its reply_to is not one that a broker named",
}


class Settlement:
    """Settles deliveries. Belongs to one event loop.

    A delivery is acked when its rows are committed and its reply is with the broker, or when the copy is safe that
    takes its place. Until then the broker has it, and gives it to another program should this one die.

    Args:
        outbox: takes replies and copies.
        on_settled: is called once for each delivery, when it is not in hand any more.
        metrics: counts replies, and what is put aside.
    """

    def __init__(self, outbox: Outbox, on_settled: Callable[[Delivery], None], metrics: WorkerMetrics) -> None:
        self._outbox = outbox
        self._on_settled = on_settled
        self._metrics = metrics
        self._warnings = {
            answer: RareWarning(logger, text, action="package.unanswered") for answer, text in _UNANSWERED.items()
        }

    def settle(self, delivery: Delivery, outcome: Stored | Refused, source: Source) -> None:
        """Settles a package that is stored or refused.

        Args:
            delivery: the package.
            outcome: what became of it.
            source: the exchange and routing key that it was first published to.
        """
        if isinstance(outcome, Stored):
            self._reply(delivery, outcome.row_count)
        else:
            self._refuse(delivery, outcome, source)

    def quarantine(self, delivery: Delivery, source: Source, then: Callable[[], None]) -> None:
        """Moves a package to quarantine, and calls `then`."""
        logger.warning(
            "a package of %s was redelivered %d times: it is handled alone",
            source[1],
            delivery.redelivery_count,
            extra={"action": "package.quarantine", "count": delivery.redelivery_count, **_fields(delivery, source)},
        )

        def moved() -> None:
            self._metrics.quarantined.inc()
            self._forget(delivery)
            then()

        self._outbox.send_copy(quarantined(uuid4().hex, delivery, source), moved)

    def _refuse(self, delivery: Delivery, refused: Refused, source: Source) -> None:
        fields = {"error": refused.reason.value, "reason": refused.message, **_fields(delivery, source)}
        logger.warning(
            "a package of %s goes to the dead letters, %s: %s",
            source[1],
            refused.reason,
            refused.message,
            extra={"action": "package.bury", **fields},
        )

        def buried() -> None:
            self._metrics.dead_letters[refused.reason].inc()
            if understands_nack(delivery):
                self._reply(delivery, nack_of(delivery, refused.reason, refused.message))
            else:
                self._forget(delivery)

        letter = dead_letter(uuid4().hex, delivery, source, refused.reason, refused.message)
        self._outbox.send_copy(letter, buried)

    def _reply(self, delivery: Delivery, reply: Reply) -> None:
        answer = answer_of(delivery)
        if answer in self._warnings:
            self._warnings[answer].warn()
        if answer is not Answer.EXPECTED:
            self._forget(delivery)
            return
        message = Message(
            token=uuid4().hex,
            exchange="",
            routing_key=delivery.reply_to or "",
            body=encode_reply(reply),
            content_type=CONTENT_TYPE,
            correlation_id=delivery.correlation_id,
            # A sender that is gone took its queue along; the reply has nowhere to go, and need not.
            mandatory=False,
            persistent=False,
        )
        self._metrics.replies[ReplyKind.NACK if isinstance(reply, Nack) else ReplyKind.ACK].inc()
        self._outbox.send_reply(message, partial(self._forget, delivery))

    def _forget(self, delivery: Delivery) -> None:
        delivery.ack()
        self._on_settled(delivery)


def _fields(delivery: Delivery, source: Source) -> dict[str, str | None]:
    exchange, routing_key = source
    return {"exchange": exchange, "routing_key": routing_key, "correlation_id": delivery.correlation_id}
