"""Looks at what the gateway depends on beyond a connection: queues, consumers, alarms, the certificate that it serves.

| condition | does not hold while |
|---|---|
| topology | an exchange or a queue is missing, or is not what set-up declares |
| consumers | a work queue has none |
| ranges | the broker's queues are of other range counts |
| blocked | the broker blocks publishers: an alarm |
| certificate | the served certificate has expired or cannot be read |
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from provgate_broker.amqp.connection import AmqpParameters, AmqpSession
from provgate_broker.amqp.link import AmqpLink
from provgate_broker.settings import RabbitMqSettings
from provgate_broker.topology.inspection import (
    PublishRight,
    TopologyReport,
    inspect_topology,
    outgrown_exchanges,
    probe_publishing,
)
from provgate_broker.topology.policy import Exchange, RangePolicy
from provgate_gateway.metrics import queue_metrics
from provgate_gateway.rpc.handler_wrappers import within
from provgate_runtime import ConfigurationError
from provgate_runtime.counted import counted
from provgate_runtime.expiry import certificate_expiry
from provgate_runtime.outage import Outage
from provgate_runtime.watch.conditions import Condition

logger = logging.getLogger(__name__)

TOPOLOGY: Final = "topology"
CONSUMERS: Final = "consumers"
RANGES: Final = "ranges"

_SHOWN_COUNT: Final = 3


def topology_conditions(report: TopologyReport | None) -> list[Condition]:
    """Returns what follows from an inspection; None is one that was not made, since the broker does not answer."""
    names = (TOPOLOGY, CONSUMERS, RANGES)
    if report is None:
        return [Condition(name, "not known: the broker has not been inspected") for name in names]
    problems = (_topology_problem(report), _consumers_problem(report), _range_counts_problem(report))
    return [Condition(name, problem) for name, problem in zip(names, problems, strict=True)]


def _topology_problem(report: TopologyReport) -> str | None:
    faults = [
        *(f"exchange {exchange}: {fault}" for exchange, fault in report.exchanges.items()),
        *(f"queue {name} is missing" for name in report.missing),
        *(f"queue {name}: {difference}" for name, difference in report.different.items()),
    ]
    return some_of(faults, "; ") if faults else None


def _consumers_problem(report: TopologyReport) -> str | None:
    if not report.unconsumed:
        return None
    return f"{len(report.unconsumed)} of {len(report.work)} work queues have no consumer: {some_of(report.unconsumed)}"


def _range_counts_problem(report: TopologyReport) -> str | None:
    faults = []
    for exchange, count in report.range_counts.items():
        shown = "more ranges than are configured" if count is None else f"only {counted(count, 'range')}"
        faults.append(f"{exchange}: the broker has queues of {shown}")
    return "; ".join(faults) or None


def some_of(texts: Sequence[str], separator: str = ", ") -> str:
    """Returns the first of some texts, and how many more there are."""
    more = f" and {len(texts) - _SHOWN_COUNT} more" if len(texts) > _SHOWN_COUNT else ""
    return separator.join(texts[:_SHOWN_COUNT]) + more


BLOCKED: Final = "blocked"
CERTIFICATE: Final = "certificate"

_RECHECK_S: Final = 3.0

# Of so many looks one compares arguments, and one asks for queues that should not be there.
_COMPARED_EVERY: Final = 4
_OUTGROWN_EVERY: Final = 40


@dataclass(frozen=True, slots=True)
class Inspected:
    """What is inspected.

    Attributes:
        parameters: the broker.
        policy: the range counts.
        rabbitmq: what the queues should be. Another deployment's broker is asked passively, and publishes to it are not
            probed: an alarm there is known from the packages alone.
        certificate_file: of the served certificate; None where the gateway serves plain text.
    """

    parameters: AmqpParameters
    policy: RangePolicy
    rabbitmq: RabbitMqSettings
    certificate_file: str | None


class Inspection(Collector):
    """Inspects again and again, on connections of its own. Runs on one event loop; may be asked on any thread.

    Args:
        inspected: what.
        interval_s: seconds from one inspection to the next.
        blocked: whether the broker holds back what the gateway publishes.
    """

    def __init__(self, inspected: Inspected, interval_s: float, blocked: Callable[[], bool]) -> None:
        self._inspected = inspected
        self._interval_s = interval_s
        self._blocked = blocked
        # Replaced as a whole, for those who ask on other threads.
        self._report: TopologyReport | None = None
        self._probe_blocked = False
        self._outages: dict[str, Outage] = {}
        self._looking = AmqpLink(inspected.parameters, "provgate-gateway inspection", self._look)
        self._probing = AmqpLink(inspected.parameters, "provgate-gateway alarms", self._probe)

    async def run(self) -> None:
        """Inspects until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._looking.run())
            if self._inspected.rabbitmq.topology == "own":
                group.create_task(self._probing.run())

    def conditions(self) -> Sequence[Condition]:
        """Returns what must hold for the gateway's work to get anywhere."""
        blocked = self._probe_blocked or self._blocked()
        return [
            *topology_conditions(self._report),
            Condition(BLOCKED, "the broker blocks publishers: it is short of memory or of disk" if blocked else None),
            Condition(CERTIFICATE, certificate_problem(self._inspected.certificate_file, datetime.now(UTC))),
        ]

    def collect(self) -> Iterable[Metric]:
        """Returns depth and consumers of every queue that the last inspection found."""
        return queue_metrics(self._report)

    async def _look(self, session: AmqpSession) -> None:
        looking = _Looking(session, self._inspected)
        try:
            while True:
                self._report = await looking.look()
                self._log(topology_conditions(self._report))
                await within(session.wait_lost(), self._pause_s(self._report))
        finally:
            self._report = None

    async def _probe(self, session: AmqpSession) -> None:
        # Not on the connection that looks: the broker answers no question on one that has published while it blocks.
        try:
            while True:
                if not session.blocked:
                    await _publish_probe(session)
                self._probe_blocked = session.blocked
                session.on_blocked(self._on_blocked)
                await within(session.wait_lost(), self._interval_s)
        finally:
            self._probe_blocked = False

    def _pause_s(self, report: TopologyReport) -> float:
        # While consumers alone are missing, somebody waits for them. What else is wrong is a line in the broker's log
        # each time that it is asked for.
        waits = report.unconsumed and not (report.missing or report.different or report.exchanges)
        return min(_RECHECK_S, self._interval_s) if waits else self._interval_s

    def _on_blocked(self, blocked: bool) -> None:
        self._probe_blocked = blocked

    def _log(self, conditions: Sequence[Condition]) -> None:
        for condition in conditions:
            outage = self._outages.setdefault(condition.name, Outage(logger, action="broker.inspect"))
            if condition.problem is None:
                outage.ended(f"{condition.name}: as it should be", condition=condition.name)
            else:
                outage.failed(condition.name, condition.problem, condition=condition.name)


class _Looking:
    """Looks at the topology over one connection, and at what is dear, or a line in the broker's log, not every time."""

    def __init__(self, session: AmqpSession, inspected: Inspected) -> None:
        self._session = session
        self._inspected = inspected
        self._count = 0
        self._may_compare = True
        self._differences: dict[str, str] = {}
        self._outgrown: frozenset[Exchange] = frozenset()

    async def look(self) -> TopologyReport:
        policy = self._inspected.policy
        if self._count % _OUTGROWN_EVERY == 0:
            self._outgrown = await outgrown_exchanges(self._session, policy)
        compares = self._may_compare and self._count % _COMPARED_EVERY == 0
        self._count += 1
        known = None if compares else self._differences
        report = await inspect_topology(
            self._session, policy, self._inspected.rabbitmq, differences=known, outgrown=self._outgrown
        )
        if compares:
            # What is refused once is not asked again.
            self._may_compare, self._differences = report.compared, report.different
        return report


async def _publish_probe(session: AmqpSession) -> None:
    report = await probe_publishing(session, (Exchange.CONTENT,))
    if report.rights[Exchange.CONTENT] is PublishRight.REFUSED:
        # It would be refused each time, with a line in the broker's log.
        await session.wait_lost()


def certificate_problem(file: str | None, now: datetime) -> str | None:
    """Returns what is wrong with the certificate in a file; None where nothing is, or there is none."""
    if file is None:
        return None
    try:
        expiry = certificate_expiry(file)
    except ConfigurationError as error:
        return error.message
    return f"{file} has expired at {expiry:%Y-%m-%d %H:%M} UTC" if expiry <= now else None
