"""Rates, latencies and state from two scrapes of the same programs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE, QUARANTINE_QUEUE
from provgate_operations.top.scrape import Role, Scrape

RATES: Final = {
    "calls": "provgate_gateway_calls_total",
    "received": "provgate_gateway_entries_received_total",
    "confirmed": "provgate_gateway_entries_confirmed_total",
    "acked": "provgate_gateway_entries_acked_total",
    "committed": "provgate_workers_rows_stored_total",
}
"""The counters whose rates per second are shown."""

LATENCIES: Final = {
    "publish to confirm": "provgate_gateway_publish_to_confirm_seconds",
    "publish to ack": "provgate_gateway_publish_to_ack_seconds",
    "commit": "provgate_workers_commit_seconds",
}
"""The histograms whose quantiles are shown."""

_CONNECTIONS: Final = ("provgate_gateway_broker_connected", "provgate_workers_connected_processes")
_DEPTH: Final = "provgate_gateway_queue_depth"
_CONSUMERS: Final = "provgate_gateway_queue_consumers"
_DEAD_LETTERS: Final = "provgate_gateway_dead_letter_depth"


class Program(msgspec.Struct, frozen=True):
    """A program.

    Attributes:
        role: gateway or workers.
        address: its watch port.
        problem: why it does not answer; None if it does.
        connections: for each connection to the broker, the number of processes that have it.
    """

    role: Role
    address: str
    problem: str | None
    connections: dict[str, int]


class Latency(msgspec.Struct, frozen=True):
    """Quantiles of what ended between the scrapes, in seconds; None if nothing did."""

    p50_s: float | None
    p99_s: float | None


class Use(msgspec.Struct, frozen=True):
    """The used part of a bound, summed over all gateways."""

    used: float
    bound: float


class Ranges(msgspec.Struct, frozen=True):
    """The work queues of one operation.

    Attributes:
        exchange: their exchange.
        operation: their operation.
        depths: the number of waiting packages, by range.
        unconsumed: the ranges, in hexadecimal, whose queue has no consumer.
    """

    exchange: str
    operation: str
    depths: list[int]
    unconsumed: list[str]


class Figures(msgspec.Struct, frozen=True):
    """The state and progress of all programs.

    Attributes:
        interval_s: the time between the scrapes.
        programs: the programs.
        rates: rates per second, by the names of `RATES`.
        latencies: by the names of `LATENCIES`.
        calls_in_flight: the number of running calls.
        unacked_entries, unacked_bytes: what the gateways have admitted and not acked.
        blocked: whether the broker blocks the publishes of a gateway.
        ranges: the work queues, as the gateways last inspected them.
        dead_letters, quarantined: the number of packages in the dead-letter and the quarantine queue.
    """

    interval_s: float
    programs: list[Program]
    rates: dict[str, float]
    latencies: dict[str, Latency]
    calls_in_flight: int
    unacked_entries: Use
    unacked_bytes: Use
    blocked: bool
    ranges: list[Ranges]
    dead_letters: int
    quarantined: int


_Pairs: TypeAlias = Sequence[tuple[Scrape, Scrape]]


def figures(before: Sequence[Scrape], now: Sequence[Scrape]) -> Figures:
    """Returns the figures of two scrapes of the same sources, in the same order.

    The counters of a program that was restarted begin at zero. A program that did not answer both scrapes has no rates.
    """
    pairs = [pair for pair in zip(before, now, strict=True) if pair[0].problem is None and pair[1].problem is None]
    return Figures(
        interval_s=max((later.taken_at - earlier.taken_at for earlier, later in pairs), default=0.0),
        programs=[_program(scrape) for scrape in now],
        rates={name: _rate(pairs, metric) for name, metric in RATES.items()},
        latencies={name: _latency(pairs, metric) for name, metric in LATENCIES.items()},
        calls_in_flight=round(_sum(now, "provgate_gateway_calls_in_flight")),
        unacked_entries=_use(now, "entries"),
        unacked_bytes=_use(now, "bytes"),
        blocked=_sum(now, "provgate_gateway_broker_blocked") > 0,
        ranges=_ranges(now),
        dead_letters=_depth(now, DEAD_LETTER_QUEUE),
        quarantined=_depth(now, QUARANTINE_QUEUE),
    )


def first_figures(now: Sequence[Scrape]) -> Figures:
    """Returns the figures of a first scrape, which has no rates."""
    return figures([Scrape(scrape.source, scrape.taken_at, problem="not scraped yet") for scrape in now], now)


def _program(scrape: Scrape) -> Program:
    samples = (sample for name in _CONNECTIONS for sample in scrape.named(name))
    connections = {sample.labels["connection"]: round(sample.value) for sample in samples}
    return Program(scrape.source.role, scrape.source.address, scrape.problem, connections)


def _rate(pairs: _Pairs, name: str) -> float:
    return sum(
        increase / (later.taken_at - earlier.taken_at)
        for earlier, later in pairs
        if later.taken_at > earlier.taken_at
        for _, increase in _increases(earlier, later, name)
    )


def _latency(pairs: _Pairs, name: str) -> Latency:
    buckets: defaultdict[float, float] = defaultdict(float)
    for earlier, later in pairs:
        for labels, increase in _increases(earlier, later, f"{name}_bucket"):
            buckets[float(labels["le"])] += increase
    return Latency(quantile(buckets, 0.5), quantile(buckets, 0.99))


def _increases(earlier: Scrape, later: Scrape, name: str) -> Iterator[tuple[dict[str, str], float]]:
    values = {frozenset(sample.labels.items()): sample.value for sample in earlier.named(name)}
    for sample in later.named(name):
        known = values.get(frozenset(sample.labels.items()), 0.0)
        yield sample.labels, sample.value - known if sample.value >= known else sample.value


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """Returns a quantile, interpolated within a bucket as PromQL does.

    Args:
        buckets: the number of observations up to each upper bound, cumulative.
        share: from 0 to 1.

    Returns:
        None without observations. The last finite bound if the quantile is beyond it.
    """
    total = max(buckets.values(), default=0.0)
    if total <= 0:
        return None
    rank, lower_bound, below = share * total, 0.0, 0.0
    for bound in sorted(buckets):
        if math.isinf(bound):
            break
        if buckets[bound] >= rank:
            within = buckets[bound] - below
            return bound if within <= 0 else lower_bound + (bound - lower_bound) * (rank - below) / within
        lower_bound, below = bound, buckets[bound]
    return lower_bound


def _sum(scrapes: Sequence[Scrape], name: str) -> float:
    return sum(sample.value for scrape in scrapes for sample in scrape.named(name))


def _use(scrapes: Sequence[Scrape], unit: str) -> Use:
    used = _sum(scrapes, f"provgate_gateway_unacked_{unit}")
    return Use(used, _sum(scrapes, f"provgate_gateway_unacked_bound_{unit}"))


def _depth(scrapes: Sequence[Scrape], queue: str) -> int:
    # Several gateways inspect the same queue.
    samples = (sample for scrape in scrapes for sample in scrape.named(_DEAD_LETTERS, queue=queue))
    return round(max((sample.value for sample in samples), default=0.0))


def _ranges(scrapes: Sequence[Scrape]) -> list[Ranges]:
    consumers = _by_range(scrapes, _CONSUMERS)
    ranges = []
    for operation, depths in sorted(_by_range(scrapes, _DEPTH).items()):
        by_range = [depths.get(number, 0) for number in range(max(depths) + 1)]
        unconsumed = [f"{number:x}" for number, count in sorted(consumers[operation].items()) if count == 0]
        ranges.append(Ranges(*operation, by_range, unconsumed))
    return ranges


def _by_range(scrapes: Sequence[Scrape], name: str) -> defaultdict[tuple[str, str], dict[int, int]]:
    """Returns the values of a metric by exchange and operation, then by range."""
    values: defaultdict[tuple[str, str], dict[int, int]] = defaultdict(dict)
    for scrape in scrapes:
        for sample in scrape.named(name):
            of_operation = values[sample.labels["exchange"], sample.labels["operation"]]
            number = int(sample.labels["range"], 16)
            of_operation[number] = max(of_operation.get(number, 0), round(sample.value))
    return values
