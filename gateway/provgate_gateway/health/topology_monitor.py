"""Inspects the broker's queues again and again, for /readyz and the metrics of queues.

| condition | does not hold while |
|---|---|
| topology | an exchange or a queue is missing |
| consumers | a work queue has no consumer |
| ranges | the broker has queues of other range counts |
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Sequence
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from provgate_broker.amqp.connection import AmqpParameters, AmqpSession
from provgate_broker.amqp.link import AmqpLink
from provgate_broker.settings import RabbitMqSettings
from provgate_broker.topology.inspection import TopologyReport, inspect_topology, outgrown_exchanges
from provgate_broker.topology.policy import Exchange, RangePolicy
from provgate_gateway.metrics import queue_metrics
from provgate_gateway.rpc.handler_wrappers import within
from provgate_runtime.counted import counted
from provgate_runtime.outage import Outage
from provgate_runtime.watch.conditions import Condition

logger = logging.getLogger(__name__)

_SHOWN_COUNT: Final = 3
_RECHECK_S: Final = 3.0

# One inspection of this number looks for queues of more ranges: the broker logs a line for each that does not exist.
_OUTGROWN_EVERY: Final = 40


class TopologyMonitor(Collector):
    """Inspects the topology on a connection of its own. Runs on one event loop; the results are for any thread.

    Args:
        parameters: the broker.
        policy: the range counts.
        rabbitmq: what the queues should be.
        interval_s: seconds between two inspections.
    """

    def __init__(
        self, parameters: AmqpParameters, policy: RangePolicy, rabbitmq: RabbitMqSettings, interval_s: float
    ) -> None:
        self._policy = policy
        self._rabbitmq = rabbitmq
        self._interval_s = interval_s
        # Replaced as a whole, for readers on other threads.
        self._report: TopologyReport | None = None
        self._outages: dict[str, Outage] = {}
        self._link = AmqpLink(parameters, "provgate-gateway inspection", self._inspect)

    async def run(self) -> None:
        """Inspects until it is cancelled."""
        await self._link.run()

    def conditions(self) -> list[Condition]:
        """Returns the conditions of the last inspection."""
        return topology_conditions(self._report)

    def collect(self) -> Iterable[Metric]:
        """Returns depth and consumers of every queue, from the last inspection."""
        return queue_metrics(self._report)

    async def _inspect(self, session: AmqpSession) -> None:
        outgrown: frozenset[Exchange] = frozenset()
        try:
            for number in itertools.count():
                if number % _OUTGROWN_EVERY == 0:
                    outgrown = await outgrown_exchanges(session, self._policy)
                # `provgate doctor` compares arguments. Here each difference would be a line in the broker's log.
                report = await inspect_topology(
                    session, self._policy, self._rabbitmq, compare_arguments=False, outgrown=outgrown
                )
                self._report = report
                self._log(topology_conditions(report))
                # Workers are probably starting if only consumers are missing.
                is_starting = report.unconsumed and not report.missing and not report.exchanges
                pause_s = min(_RECHECK_S, self._interval_s) if is_starting else self._interval_s
                await within(session.wait_lost(), pause_s)
        finally:
            self._report = None

    def _log(self, conditions: Sequence[Condition]) -> None:
        for condition in conditions:
            outage = self._outages.setdefault(condition.name, Outage(logger, action="broker.inspect"))
            if condition.problem is None:
                outage.ended(f"{condition.name}: as it should be", condition=condition.name)
            else:
                outage.failed(condition.name, condition.problem, condition=condition.name)


def topology_conditions(report: TopologyReport | None) -> list[Condition]:
    """Returns the conditions that follow from an inspection; None if the broker has not been inspected."""
    if report is None:
        unknown = "not known: the broker has not been inspected"
        return [Condition(name, unknown) for name in ("topology", "consumers", "ranges")]
    faults = [f"exchange {exchange}: {fault}" for exchange, fault in report.exchanges.items()]
    faults += [f"queue {name} is missing" for name in report.missing]
    unconsumed = None
    if report.unconsumed:
        queues = f"{len(report.unconsumed)} of {len(report.work)} work queues"
        unconsumed = f"{queues} have no consumer: {some_of(report.unconsumed)}"
    range_counts = [
        f"{exchange}: the broker has queues of "
        + ("more ranges than are configured" if count is None else f"only {counted(count, 'range')}")
        for exchange, count in report.range_counts.items()
    ]
    return [
        Condition("topology", some_of(faults, "; ") or None),
        Condition("consumers", unconsumed),
        Condition("ranges", "; ".join(range_counts) or None),
    ]


def some_of(texts: Sequence[str], separator: str = ", ") -> str:
    """Returns the first texts, and the number of the others."""
    more = f" and {len(texts) - _SHOWN_COUNT} more" if len(texts) > _SHOWN_COUNT else ""
    return separator.join(texts[:_SHOWN_COUNT]) + more
