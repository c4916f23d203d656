"""The metrics of a program: made in one registry under one prefix, and described for the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

DURATION_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
COUNT_BUCKETS: Final = (1, 10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000)
SIZE_BUCKETS_BYTES: Final = (256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864)


@dataclass(frozen=True, slots=True)
class Described:
    """A metric, for those who read of it.

    Attributes:
        name: as /metrics shows it, without the suffixes of a histogram's series.
        kind: "counter", "gauge" or "histogram".
        labels: the names of its labels.
        text: what it says.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    text: str


class MetricSet:
    """Makes the metrics of one program.

    Args:
        prefix: what every name begins with.
        registry: where they are shown.

    Attributes:
        described: all that were made, in their order.
    """

    def __init__(self, prefix: str, registry: CollectorRegistry) -> None:
        self.described: list[Described] = []
        self._prefix = prefix
        self._registry = registry

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        """Returns a new counter; `_total` is added to its name."""
        self._describe(f"{name}_total", "counter", labels, text)
        return Counter(f"{self._prefix}_{name}", text, labels, registry=self._registry)

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        """Returns a new gauge. Of several processes it is the sum of those that live."""
        self._describe(name, "gauge", labels, text)
        full = f"{self._prefix}_{name}"
        return Gauge(full, text, labels, registry=self._registry, multiprocess_mode="livesum")

    def histogram(self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ()) -> Histogram:
        """Returns a new histogram with the upper bounds `buckets`."""
        self._describe(name, "histogram", labels, text)
        return Histogram(f"{self._prefix}_{name}", text, labels, registry=self._registry, buckets=buckets)

    def _describe(
        self, name: str, kind: Literal["counter", "gauge", "histogram"], labels: Sequence[str], text: str
    ) -> None:
        self.described.append(Described(f"{self._prefix}_{name}", kind, tuple(labels), text))
