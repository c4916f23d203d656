"""A picture of the writes: rates by subject, and CPU time by role."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.measure.cpu import ROLES
from bench.report.results import Results, Written, cpu_s_per_million, rate
from bench.subjects import DIRECT, GATEWAY, GATEWAYS, HABITS, LIMIT

_SUBJECTS: Final = {GATEWAY: "#1f5fa8", GATEWAYS: "#6aa0d8", DIRECT: "#e08a1e", LIMIT: "#4a9a5b", HABITS: "#b9b9b9"}
_ROLES: Final = dict(zip(ROLES, ("#937ab8", "#1f5fa8", "#c0504d", "#d9b44a", "#8a8a8a"), strict=True))
_BAR: Final = 0.2
_ROW_INCHES: Final = 0.75
_HEAD_INCHES: Final = 1.6
_TITLE_POINTS: Final = 26


def plot(results: Results, path: Path) -> None:
    """Draws the writes as SVG, a row for each workload."""
    written = results.written
    mpl.rcParams["svg.fonttype"] = "none"
    figure = Figure(figsize=(15, _HEAD_INCHES + _ROW_INCHES * len(written)), layout="constrained")
    rates, cpu = figure.subplots(1, 2, sharey=True)
    for row, each in enumerate(written):
        _draw_row(rates, cpu, row, each)
    rates.set_yticks(range(len(written)), [f"{each.title}\n{each.entries:,}" for each in written])
    rates.set_ylim(len(written) - 0.4, -0.6)
    rates.set_title("Entries a second, median", loc="left", pad=_TITLE_POINTS)
    cpu.set_title(
        "CPU seconds per million entries, in the order of the bars on the left", loc="left", pad=_TITLE_POINTS
    )
    _legend(rates, {name: color for name, color in _SUBJECTS.items() if any(each.of(name) for each in written)})
    _legend(cpu, _ROLES)
    for axes in (rates, cpu):
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    rates.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg")


def _draw_row(rates: Axes, cpu: Axes, row: int, written: Written) -> None:
    there = [name for name in _SUBJECTS if written.of(name)]
    for number, name in enumerate(there):
        place = row + (number - (len(there) - 1) / 2) * _BAR
        runs = written.of(name)
        rates.barh(place, rate(runs), _BAR * 0.9, color=_SUBJECTS[name])
        start = 0.0
        for role, seconds in cpu_s_per_million(runs).items():
            cpu.barh(place, seconds, _BAR * 0.9, left=start, color=_ROLES[role])
            start += seconds


def _legend(axes: Axes, colors: dict[str, str]) -> None:
    for name, color in colors.items():
        axes.barh(0, 0, color=color, label=name)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(colors), frameon=False, borderpad=0.2)
