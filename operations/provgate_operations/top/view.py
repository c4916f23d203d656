"""The figures as a picture for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from provgate_operations.top.figures import Figures, Latency, Program, Ranges, Use

_BARS: Final = "▁▂▃▄▅▆▇█"
_BAR_WIDTH: Final = 20


def view(figures: Figures) -> RenderableType:
    """Returns a picture of all figures."""
    return Group(
        _programs(figures.programs),
        Panel(_rates(figures.rates), title="a second", title_align="left"),
        Panel(_latencies(figures.latencies), title="latencies", title_align="left"),
        Panel(_queues(figures.ranges), title="waiting packages, by range", title_align="left"),
        _state(figures),
    )


def _programs(programs: Sequence[Program]) -> Table:
    table = Table.grid(padding=(0, 2))
    for program in programs:
        state = Text(f"does not answer: {program.problem}", style="bold red")
        if program.problem is None:
            counts = program.connections.items()
            state = Text.assemble(*((f"{name} {count}  ", "green" if count else "bold red") for name, count in counts))
        table.add_row(Text(program.role, style="bold"), program.address, state)
    return table


def _rates(rates: dict[str, float]) -> Table:
    table = Table.grid(padding=(0, 3))
    for name in rates:
        table.add_column(name, justify="right")
    table.add_row(*(Text(name, style="dim") for name in rates))
    table.add_row(*(Text(f"{rate:,.0f}", style="bold") for rate in rates.values()))
    return table


def _latencies(latencies: dict[str, Latency]) -> Table:
    table = Table.grid(padding=(0, 3))
    table.add_row("", Text("p50", style="dim"), Text("p99", style="dim"))
    for name, latency in latencies.items():
        table.add_row(name, _duration(latency.p50_s), _duration(latency.p99_s))
    return table


def _duration(duration_s: float | None) -> str:
    if duration_s is None:
        return "-"
    return f"{duration_s * 1000:.1f} ms" if duration_s < 1 else f"{duration_s:.2f} s"


def _queues(ranges: Sequence[Ranges]) -> RenderableType:
    if not ranges:
        return Text("no gateway has inspected queues yet", style="dim")
    table = Table.grid(padding=(0, 2))
    deepest = max(max(each.depths) for each in ranges)
    for each in ranges:
        # One character a range; a dot for an empty queue.
        bars = ("·" if not depth else _BARS[(len(_BARS) - 1) * depth // deepest] for depth in each.depths)
        table.add_row(
            each.exchange,
            each.operation,
            Text(f"{sum(each.depths):,}", justify="right"),
            Text("".join(bars), style="cyan"),
            Text(f"no consumer: {', '.join(each.unconsumed)}" if each.unconsumed else "", style="bold red"),
        )
    return table


def _state(figures: Figures) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row("calls in flight", f"{figures.calls_in_flight:,}")
    for name, use in ("unacked entries", figures.unacked_entries), ("unacked bytes", figures.unacked_bytes):
        table.add_row(name, _use(use))
    for name, count in ("dead letters", figures.dead_letters), ("quarantine", figures.quarantined):
        table.add_row(name, Text(f"{count:,}", style="bold yellow" if count else ""))
    if figures.blocked:
        table.add_row("broker", Text("blocks publishers", style="bold red"))
    return table


def _use(use: Use) -> Text:
    share = use.used / use.bound if use.bound else 0.0
    filled = min(_BAR_WIDTH, round(share * _BAR_WIDTH))
    bar = "█" * filled + "░" * (_BAR_WIDTH - filled)
    return Text(f"{bar} {use.used:,.0f} of {use.bound:,.0f} ({share:.0%})", style="yellow" if share > 0.9 else "")
