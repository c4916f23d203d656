"""Scrapes of the /metrics pages of gateways and workers."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

_TIMEOUT_S: Final = 2.0
_MAX_BYTES: Final = 16 * 1024 * 1024


class Role(StrEnum):
    """The kind of a program."""

    GATEWAY = "gateway"
    WORKERS = "workers"


@dataclass(frozen=True, slots=True)
class Source:
    """A watch port.

    Attributes:
        role: the kind of the program.
        address: host and port.
    """

    role: Role
    address: str


@dataclass(frozen=True, slots=True)
class Scrape:
    """The metrics of a program at one moment.

    Attributes:
        source: the program.
        taken_at: the monotonic time, in seconds.
        samples: the samples by name; empty if the program did not answer.
        problem: why it did not answer; None if it did.
    """

    source: Source
    taken_at: float
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    problem: str | None = None

    def named(self, name: str, **labels: str) -> Iterator[Sample]:
        """Yields the samples of a name that have at least these labels."""
        wanted = labels.items()
        return (sample for sample in self.samples.get(name, ()) if sample.labels.items() >= wanted)


def scrape_all(sources: Sequence[Source]) -> list[Scrape]:
    """Scrapes all programs at once. One that does not answer in 2 seconds has a problem instead of samples."""
    if not sources:
        return []
    with ThreadPoolExecutor(len(sources)) as threads:
        return list(threads.map(_scrape, sources))


def _scrape(source: Source) -> Scrape:
    samples: dict[str, list[Sample]] = {}
    try:
        # Not urllib, which uses the proxies of the environment.
        with closing(http.client.HTTPConnection(source.address, timeout=_TIMEOUT_S)) as connection:
            connection.request("GET", "/metrics")
            response = connection.getresponse()
            if response.status != http.client.OK:
                return Scrape(source, time.monotonic(), problem=f"it answers {response.status}")
            text = response.read(_MAX_BYTES).decode("utf-8")
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append(sample)
    # HTTPException: also an address that is none.
    except (OSError, http.client.HTTPException) as error:
        return Scrape(source, time.monotonic(), problem=str(error) or type(error).__name__)
    except ValueError:
        return Scrape(source, time.monotonic(), problem="the page has no metrics")
    return Scrape(source, time.monotonic(), samples)
