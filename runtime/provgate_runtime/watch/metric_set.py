"""The metrics of a program: in one registry, under one prefix, and described for docs/metrics.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

DURATION_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
COUNT_BUCKETS: Final = (1, 10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000)
SIZE_BUCKETS_BYTES: Final = (256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864)

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Described:
    """The description of a metric.

    Attributes:
        name: the name in /metrics, without the suffixes of a histogram's series.
        kind: the kind.
        labels: the names of its labels.
        text: its help text.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    text: str


class MetricSet:
    """Creates the metrics of one program.

    Args:
        prefix: the prefix of every name.
        registry: the registry of all metrics.

    Attributes:
        described: all metrics, in the order of their creation.
    """

    def __init__(self, prefix: str, registry: CollectorRegistry) -> None:
        self.described: list[Described] = []
        self._prefix = prefix
        self._registry = registry

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        """Returns a new counter. `_total` is added to its name."""
        return Counter(self._describe(name, "counter", labels, text), text, labels, registry=self._registry)

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        """Returns a new gauge. With several processes its value is the sum over the live ones."""
        full_name = self._describe(name, "gauge", labels, text)
        return Gauge(full_name, text, labels, registry=self._registry, multiprocess_mode="livesum")

    def histogram(self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ()) -> Histogram:
        """Returns a new histogram with the upper bounds `buckets`."""
        full_name = self._describe(name, "histogram", labels, text)
        return Histogram(full_name, text, labels, registry=self._registry, buckets=buckets)

    def _describe(self, name: str, kind: Kind, labels: Sequence[str], text: str) -> str:
        full_name = f"{self._prefix}_{name}"
        shown = f"{full_name}_total" if kind == "counter" else full_name
        self.described.append(Described(shown, kind, tuple(labels), text))
        return full_name
