"""The goals, and whether the results reach them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from bench.measure.latencies import CONTENT_GET, FIND_ALL, FIND_FIRST, ONE_ENTRY
from bench.measure.memory import CLIENT_GROWTH, GATEWAY_PEAK, WORKERS_AFTER, WORKERS_AT_END
from bench.report.results import Results, Written, percentile, ratio, total_cpu_s_per_million
from bench.subjects import DIRECT, GATEWAY, LIMIT
from bench.writes.workloads import CONTENTS, EMPTY, LARGE, MILLION, RELATIONS, TEN_THOUSAND

_LIMIT_SHARE: Final = 0.65
_LATENCIES_MS: Final = (
    (ONE_ENTRY, 50, 6.0),
    (ONE_ENTRY, 99, 20.0),
    (FIND_FIRST, 50, 2.0),
    (FIND_ALL, 50, 3.0),
    (CONTENT_GET, 50, 8.0),
)
_MEMORY_MIB: Final = ((WORKERS_AFTER, 120.0), (WORKERS_AT_END, 120.0), (GATEWAY_PEAK, 150.0), (CLIENT_GROWTH, 50.0))
_READY_S: Final = 2.0
_INDEXING_S: Final = 15.0
_LARGE_TIMES: Final = 1.6
# With linear cost an entry of a million costs no more than one of ten thousand; the rest is noise.
_LINEAR_TIMES: Final = 1.25


@dataclass(frozen=True)
class Goal:
    """A bound, and the result.

    Attributes:
        title: the bounded figure.
        bound: the bound, for people.
        seen: the result, for people.
        held: whether the result keeps the bound.
    """

    title: str
    bound: str
    seen: str
    held: bool


def goals(results: Results) -> list[Goal]:
    """Returns the goals of everything that was measured."""
    kinds: list[Callable[[Results], Iterator[Goal]]] = [_rates, _latencies, _memory, _durations, _growth]
    return [goal for kind in kinds for goal in kind(results)]


def _rates(results: Results) -> Iterator[Goal]:
    for name in (CONTENTS, RELATIONS):
        yield from _over(results, name, LIMIT, _LIMIT_SHARE)
    for name in (CONTENTS, RELATIONS, "revisions", "locations", "origins"):
        yield from _over(results, name, DIRECT, 1.0)


def _over(results: Results, name: str, other: str, bound: float) -> Iterator[Goal]:
    written = results.find(name)
    seen = None if written is None else ratio(written.runs, GATEWAY, other)
    if written is not None and seen is not None:
        yield Goal(f"{_title(written)}: rate by {other}'s", f"≥ {bound:.2f}", f"{seen:.2f}", seen >= bound)


def _latencies(results: Results) -> Iterator[Goal]:
    for name, percent, bound in _LATENCIES_MS:
        for latency in results.latencies:
            if (latency.name, latency.subject) == (name, GATEWAY):
                yield _below(f"{latency.title}: p{percent}", percentile(latency.taken_ms, percent), bound, "ms")


def _memory(results: Results) -> Iterator[Goal]:
    for name, bound in _MEMORY_MIB:
        if name in results.memory_mib:
            yield _below(f"memory of {name}", results.memory_mib[name], bound, "MiB")


def _durations(results: Results) -> Iterator[Goal]:
    if results.ready_s:
        yield _below("workers ready, topology in place", statistics.median(results.ready_s), _READY_S, "s")
    if results.indexings:
        run = results.indexings[0]
        seconds = statistics.median(run.seconds for run in results.indexings)
        yield _below(f"indexing {run.repository}, {run.revisions:,} revisions", seconds, _INDEXING_S, "s")


def _growth(results: Results) -> Iterator[Goal]:
    for name in (CONTENTS, RELATIONS):
        title = "CPU time an entry costs in large tables, by that in empty ones: {}"
        yield from _times(results, title, LARGE[name], EMPTY[name], _LARGE_TIMES)
    title = "CPU time an entry costs among 1,000,000, by that among 10,000: {}"
    yield from _times(results, title, MILLION, TEN_THOUSAND, _LINEAR_TIMES)


def _times(results: Results, title: str, name: str, other: str, bound: float) -> Iterator[Goal]:
    one, base = results.find(name), results.find(other)
    if one is not None and base is not None:
        seen = total_cpu_s_per_million(one.of(GATEWAY)) / total_cpu_s_per_million(base.of(GATEWAY))
        yield _below(title.format(one.title), seen, bound, "")


def _title(written: Written) -> str:
    return f"{written.title}, {written.entries:,}"


def _below(title: str, seen: float, bound: float, unit: str) -> Goal:
    return Goal(title, f"< {bound:g} {unit}".strip(), f"{seen:.2f} {unit}".strip(), seen < bound)
