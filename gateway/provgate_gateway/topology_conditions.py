"""What an inspection of the broker's queues means for whether the gateway can do its work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from provgate_broker.inspection import TopologyReport
from provgate_config.counted import counted
from provgate_telemetry.conditions import Condition

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
