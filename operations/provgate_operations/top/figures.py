"""What two looks at the same programs say of the time between them."""

from __future__ import annotations

import http.client
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import msgspec
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from provgate_broker.topology.declaration import DEAD_LETTER_QUEUE, QUARANTINE_QUEUE


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """Returns below which value a share of what was observed is, interpolated within a bucket as PromQL does.

    Args:
        buckets: how many were observed up to each upper bound, all below it included.
        share: from 0 to 1.

    Returns:
        None where nothing was observed. Of what is beyond the last finite bound, that bound.
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


_MAX_BYTES: Final = 16 * 1024 * 1024


class Role(StrEnum):
    """What a program is."""

    GATEWAY = "gateway"
    WORKERS = "workers"


@dataclass(frozen=True, slots=True)
class Source:
    """A watch port.

    Attributes:
        role: of the program behind it.
        address: host and port.
    """

    role: Role
    address: str


@dataclass(frozen=True, slots=True)
class Scrape:
    """What a program showed at one moment.

    Attributes:
        source: where.
        taken_at: on the monotonic clock, in seconds.
        samples: by name; none where it did not answer.
        problem: why it did not answer; None where it did.
    """

    source: Source
    taken_at: float
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    problem: str | None = None

    def named(self, name: str, **labels: str) -> Iterator[Sample]:
        """Yields the samples of a name that have at least some labels."""
        wanted = labels.items()
        return (sample for sample in self.samples.get(name, ()) if sample.labels.items() >= wanted)


def scrape_all(sources: Sequence[Source], timeout_s: float) -> list[Scrape]:
    """Asks all programs at once; one that does not answer within so many seconds is told as such."""
    if not sources:
        return []
    with ThreadPoolExecutor(len(sources)) as threads:
        return list(threads.map(lambda source: scrape(source, timeout_s), sources))


def scrape(source: Source, timeout_s: float) -> Scrape:
    """Asks one program."""
    try:
        text = _metrics_page(source.address, timeout_s)
        samples: dict[str, list[Sample]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append(sample)
    except (OSError, http.client.HTTPException) as error:
        return Scrape(source, time.monotonic(), problem=str(error) or type(error).__name__)
    except ValueError:
        return Scrape(source, time.monotonic(), problem="what it answers are no metrics")
    return Scrape(source, time.monotonic(), samples)


def _metrics_page(address: str, timeout_s: float) -> str:
    # Not urllib, which goes through the environment's proxies.
    connection = http.client.HTTPConnection(address, timeout=timeout_s)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise http.client.HTTPException(f"it answers {answer.status}")
        return answer.read(_MAX_BYTES).decode("utf-8")
    finally:
        connection.close()


RATES: Final = {
    "calls": "provgate_gateway_calls_total",
    "received": "provgate_gateway_entries_received_total",
    "confirmed": "provgate_gateway_entries_confirmed_total",
    "acked": "provgate_gateway_entries_acked_total",
    "committed": "provgate_workers_rows_stored_total",
}
"""Counters whose rates are shown: what is counted a second."""

LATENCIES: Final = {
    "publish to confirm": "provgate_gateway_publish_to_confirm_seconds",
    "publish to ack": "provgate_gateway_publish_to_ack_seconds",
    "commit": "provgate_workers_commit_seconds",
}
"""Histograms whose quantiles are shown."""

_DEPTH: Final = "provgate_gateway_queue_depth"
_CONSUMERS: Final = "provgate_gateway_queue_consumers"
_ASIDE: Final = "provgate_gateway_aside_depth"


class Program(msgspec.Struct, frozen=True):
    """A program that is watched.

    Attributes:
        role: gateway or workers.
        address: its watch port.
        problem: why it does not answer; None where it does.
        connections: of each of its connections to the broker, how many processes have it.
    """

    role: Role
    address: str
    problem: str | None
    connections: dict[str, int]


class Latency(msgspec.Struct, frozen=True):
    """Quantiles of what ended in the time between, in seconds; None where nothing did."""

    p50_s: float | None
    p99_s: float | None


class Use(msgspec.Struct, frozen=True):
    """How much of a bound is used, of all gateways together."""

    used: float
    bound: float


class Ranges(msgspec.Struct, frozen=True):
    """The work queues of one operation.

    Attributes:
        exchange: theirs.
        operation: theirs.
        depths: the packages that wait, by range.
        unconsumed: the ranges, in hexadecimal, whose queue has no consumer.
    """

    exchange: str
    operation: str
    depths: list[int]
    unconsumed: list[str]


class Figures(msgspec.Struct, frozen=True):
    """How all programs did in some time.

    Attributes:
        interval_s: how long that was.
        programs: those that are watched.
        rates: by the names of `RATES`, a second.
        latencies: by the names of `LATENCIES`.
        calls_in_flight: how many run now.
        unacked_entries, unacked_bytes: what the gateways have admitted and is not acked.
        blocked: whether the broker blocks the publishes of a gateway.
        ranges: the work queues, as the gateways saw them last.
        dead_letters, quarantined: packages that wait aside.
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


def figures(before: Sequence[Scrape], now: Sequence[Scrape]) -> Figures:
    """Returns what happened between two looks at the same sources, in the same order.

    A program counts from nothing again when it starts; one that did not answer at either look has no rates.
    """
    pairs = [pair for pair in zip(before, now, strict=True) if pair[0].problem is None and pair[1].problem is None]
    interval_s = max((later.taken_at - earlier.taken_at for earlier, later in pairs), default=0.0)
    return Figures(
        interval_s=interval_s,
        programs=[_program(scrape) for scrape in now],
        rates={name: _rate(pairs, metric) for name, metric in RATES.items()},
        latencies={name: _latency(pairs, metric) for name, metric in LATENCIES.items()},
        calls_in_flight=round(_sum(now, "provgate_gateway_calls_in_flight")),
        unacked_entries=_use(now, "entries"),
        unacked_bytes=_use(now, "bytes"),
        blocked=_sum(now, "provgate_gateway_broker_blocked") > 0,
        ranges=_ranges(now),
        dead_letters=_most(now, _ASIDE, queue=DEAD_LETTER_QUEUE),
        quarantined=_most(now, _ASIDE, queue=QUARANTINE_QUEUE),
    )


def _program(scrape: Scrape) -> Program:
    names = ("provgate_gateway_broker_connected", "provgate_workers_connected_processes")
    connections = {sample.labels["connection"]: round(sample.value) for name in names for sample in scrape.named(name)}
    return Program(scrape.source.role, scrape.source.address, scrape.problem, connections)


def _rate(pairs: Sequence[tuple[Scrape, Scrape]], name: str) -> float:
    return sum(
        increase / (later.taken_at - earlier.taken_at)
        for earlier, later in pairs
        if later.taken_at > earlier.taken_at
        for _, increase in _increases(earlier, later, name)
    )


def _latency(pairs: Sequence[tuple[Scrape, Scrape]], name: str) -> Latency:
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


def _sum(scrapes: Sequence[Scrape], name: str) -> float:
    return sum(sample.value for scrape in scrapes for sample in scrape.named(name))


def _most(scrapes: Sequence[Scrape], name: str, **labels: str) -> int:
    # Several gateways look at the same queue.
    return round(max((sample.value for scrape in scrapes for sample in scrape.named(name, **labels)), default=0.0))


def _use(scrapes: Sequence[Scrape], unit: str) -> Use:
    used = _sum(scrapes, f"provgate_gateway_unacked_{unit}")
    return Use(used, _sum(scrapes, f"provgate_gateway_unacked_bound_{unit}"))


def _ranges(scrapes: Sequence[Scrape]) -> list[Ranges]:
    depths = _by_range(scrapes, _DEPTH)
    consumers = _by_range(scrapes, _CONSUMERS)
    return [
        Ranges(
            exchange,
            operation,
            [of_range.get(number, 0) for number in range(max(of_range) + 1)],
            [f"{number:x}" for number, count in sorted(consumers.get((exchange, operation), {}).items()) if not count],
        )
        for (exchange, operation), of_range in sorted(depths.items())
    ]


def _by_range(scrapes: Sequence[Scrape], name: str) -> dict[tuple[str, str], dict[int, int]]:
    found: defaultdict[tuple[str, str], dict[int, int]] = defaultdict(dict)
    for scrape in scrapes:
        for sample in scrape.named(name):
            of_range = found[sample.labels["exchange"], sample.labels["operation"]]
            number = int(sample.labels["range"], 16)
            of_range[number] = max(of_range.get(number, 0), round(sample.value))
    return found


def since_start(scrapes: Sequence[Scrape]) -> list[Scrape]:
    """Returns looks that saw nothing, for a first picture without rates."""
    return [Scrape(scrape.source, time.monotonic(), problem="not looked at before") for scrape in scrapes]
