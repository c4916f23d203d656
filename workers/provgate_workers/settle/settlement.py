"""Settles packages: COMMIT, then the reply or dead letter, then the delivery ack. Every delivery ack is sent here."""

from __future__ import annotations

import logging
import time
from enum import Enum
from typing import Final, assert_never
from uuid import uuid4

from provgate_broker.consume.delivery import Delivery
from provgate_broker.dead_letters.messages import DeadLetterReason, dead_letter, quarantined
from provgate_broker.publish.publisher import Message
from provgate_broker.topology.declaration import QUARANTINE_QUEUE
from provgate_broker.wire.package import CONTENT_TYPE, NACK_HEADER, Nack, Reply, claimed_row_count, encode_reply
from provgate_workers.metrics import ReplyKind, WorkerMetrics
from provgate_workers.package import Outcome, Package, Quarantined, Refused, State, Stored
from provgate_workers.settle.outbox import Outbox

logger = logging.getLogger(__name__)

# Reply queues that the broker named, and those named so on purpose. Any other `reply_to` would make a worker publish
# wherever the sender likes: into the queue of another range, for example.
_REPLY_QUEUE_PREFIXES: Final = ("amq.gen-", "provgate.reply.")

_NACK_MESSAGE_MAX_LENGTH: Final = 1000
_WARNING_INTERVAL_S: Final = 60.0


class Answer(Enum):
    """Whether the sender of a package gets a reply, and why not."""

    EXPECTED = "a reply is expected"
    UNWANTED = "no reply is wanted"
    NO_CORRELATION_ID = "a package without correlation id is stored and not answered"
    UNTRUSTED = "a package is stored and not answered: its reply_to is not a queue that the broker named"


def answer_of(delivery: Delivery) -> Answer:
    """Returns whether the sender of a package gets a reply."""
    if delivery.reply_to is None:
        return Answer.UNWANTED
    if not delivery.reply_to.startswith(_REPLY_QUEUE_PREFIXES):
        return Answer.UNTRUSTED
    return Answer.EXPECTED if delivery.correlation_id else Answer.NO_CORRELATION_ID


def nack_of(delivery: Delivery, refused: Refused) -> Nack | None:
    """Returns the reply that refuses a package; None if its sender does not understand one.

    It counts no row of a poisonous package: the program that died may have stored them before.
    """
    if delivery.headers.get(NACK_HEADER) is not True:
        return None
    rejected_count = 0 if refused.reason is DeadLetterReason.POISON else claimed_row_count(delivery.body)
    return Nack(refused.reason.value, refused.message[:_NACK_MESSAGE_MAX_LENGTH], rejected_count)


class Settlement:
    """Settles packages. Belongs to one event loop.

    A delivery is acked when its rows are committed and its reply is with the broker, or when its copy is safe. Until
    then the broker has it, and delivers it to another program if this one dies.

    Args:
        outbox: publishes replies and copies.
        metrics: counts replies, dead letters and quarantined packages.
    """

    def __init__(self, outbox: Outbox, metrics: WorkerMetrics) -> None:
        self._outbox = outbox
        self._metrics = metrics
        # The packages that are COPYING or REPLYING, by the token of their message.
        self._unconfirmed: dict[str, Package] = {}
        self._unanswered_count = dict.fromkeys(Answer, 0)
        self._silent_until = dict.fromkeys(Answer, 0.0)

    def settle(self, package: Package, outcome: Outcome) -> None:
        """Takes the first step after a package was stored, refused or quarantined. It may be ACKED afterwards."""
        package.outcome = outcome
        match outcome:
            case Stored(row_count):
                self._reply(package, row_count)
            case Refused(reason, text):
                logger.warning(
                    "a package of %s becomes a dead letter, %s: %s",
                    package.source[1],
                    reason,
                    text,
                    extra={"action": "package.deadletter", "error": reason.value, "reason": text, **_fields(package)},
                )
                letter = dead_letter(uuid4().hex, package.delivery, package.source, reason, text)
                self._send(package, letter, State.COPYING)
            case Quarantined():
                count = package.delivery.redelivery_count
                logger.warning(
                    "a package of %s was redelivered %d times: it is handled alone",
                    package.source[1],
                    count,
                    extra={"action": "package.quarantine", "count": count, **_fields(package)},
                )
                self._send(package, quarantined(uuid4().hex, package.delivery, package.source), State.COPYING)
            case _:
                assert_never(outcome)

    def confirmed(self, token: str) -> Package | None:
        """Takes the next step for the package whose message is safe. Returns the package if it is ACKED now."""
        package = self._unconfirmed.pop(token, None)
        if package is None:
            return None
        if package.state is State.REPLYING:
            self._ack(package)
        elif isinstance(package.outcome, Refused):
            self._metrics.dead_letters[package.outcome.reason].inc()
            nack = nack_of(package.delivery, package.outcome)
            if nack is None:
                self._ack(package)
            else:
                self._reply(package, nack)
        else:
            self._metrics.quarantined.inc()
            self._ack(package)
        return package if package.state is State.ACKED else None

    def ack_quarantine(self) -> None:
        """Acks the packages of the quarantine that wait only for their reply: the process ends now.

        The next holder would take such a package for poison, since it cannot know that this process survived it. The
        sender loses its reply. A package of a work queue needs no such ack: it is stored again, and answered then.
        """
        for package in list(self._unconfirmed.values()):
            if package.delivery.queue == QUARANTINE_QUEUE and package.state is State.REPLYING:
                self._ack(package)

    def _reply(self, package: Package, reply: Reply) -> None:
        delivery = package.delivery
        answer = answer_of(delivery)
        if answer is not Answer.EXPECTED:
            if answer is not Answer.UNWANTED:
                self._warn_unanswered(answer)
            self._ack(package)
            return
        self._metrics.replies[ReplyKind.NACK if isinstance(reply, Nack) else ReplyKind.ACK].inc()
        message = Message(
            token=uuid4().hex,
            exchange="",
            routing_key=delivery.reply_to or "",
            body=encode_reply(reply),
            content_type=CONTENT_TYPE,
            correlation_id=delivery.correlation_id,
            # The reply queue of a sender that is gone is gone too: its reply may be lost.
            mandatory=False,
            persistent=False,
        )
        self._send(package, message, State.REPLYING)

    def _send(self, package: Package, message: Message, state: State) -> None:
        package.state = state
        self._unconfirmed[message.token] = package
        self._outbox.send(message, expendable=state is State.REPLYING)

    def _ack(self, package: Package) -> None:
        package.state = State.ACKED
        package.delivery.ack()

    def _warn_unanswered(self, answer: Answer) -> None:
        self._unanswered_count[answer] += 1
        now = time.monotonic()
        if now >= self._silent_until[answer]:
            self._silent_until[answer] = now + _WARNING_INTERVAL_S
            count = self._unanswered_count[answer]
            logger.warning(
                "%s (%d so far)", answer.value, count, extra={"action": "package.unanswered", "count": count}
            )


def _fields(package: Package) -> dict[str, str | None]:
    exchange, routing_key = package.source
    return {"exchange": exchange, "routing_key": routing_key, "correlation_id": package.delivery.correlation_id}
