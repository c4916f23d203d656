"""What programs show on their watch ports."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

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
