"""What follows for a package from what became of it, in the order that loses nothing: reply or dead letter, ack."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Final
from uuid import uuid4

from provgate_broker.aside import Source, dead_letter, quarantined
from provgate_broker.delivery import Delivery
from provgate_broker.publisher import Message
from provgate_broker.wire import CONTENT_TYPE, Nack, Reply, encode_reply
from provgate_workers.answer import Answer, answer_of, nack_of, understands_nack
from provgate_workers.batch import Refused, Stored
from provgate_workers.metrics import ReplyKind, WorkerMetrics
from provgate_workers.outbox import Outbox
from provgate_workers.rare_warning import RareWarning

logger = logging.getLogger(__name__)

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
