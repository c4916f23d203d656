"""The figures as a picture for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
        Panel(_rates(figures), title="a second", title_align="left"),
        Panel(_latencies(figures), title="latencies", title_align="left"),
        Panel(_queues(figures.ranges), title="packages that wait, by range", title_align="left"),
        _state(figures),
    )


def _programs(programs: Sequence[Program]) -> Table:
    table = Table.grid(padding=(0, 2))
    for program in programs:
        if program.problem is not None:
            state = Text(f"does not answer: {program.problem}", style="bold red")
        else:
            state = Text.assemble(*_connections(program))
        table.add_row(Text(program.role, style="bold"), program.address, state)
    return table


def _connections(program: Program) -> Iterator[tuple[str, str]]:
    for name, count in program.connections.items():
        yield f"{name} {count}  ", "green" if count else "bold red"


def _rates(figures: Figures) -> Table:
    table = Table.grid(padding=(0, 3))
    for name in figures.rates:
        table.add_column(name, justify="right")
    table.add_row(*(Text(name, style="dim") for name in figures.rates))
    table.add_row(*(Text(f"{rate:,.0f}", style="bold") for rate in figures.rates.values()))
    return table


def _latencies(figures: Figures) -> Table:
    table = Table.grid(padding=(0, 3))
    table.add_row("", Text("p50", style="dim"), Text("p99", style="dim"))
    for name, latency in figures.latencies.items():
        table.add_row(name, *_quantiles(latency))
    return table


def _quantiles(latency: Latency) -> tuple[str, str]:
    return _duration(latency.p50_s), _duration(latency.p99_s)


def _duration(duration_s: float | None) -> str:
    if duration_s is None:
        return "-"
    return f"{duration_s * 1000:.1f} ms" if duration_s < 1 else f"{duration_s:.2f} s"


def _queues(ranges: Sequence[Ranges]) -> RenderableType:
    if not ranges:
        return Text("no gateway has told of queues yet", style="dim")
    table = Table.grid(padding=(0, 2))
    deepest = max(max(each.depths) for each in ranges)
    for each in ranges:
        unconsumed = f"no consumer: {', '.join(each.unconsumed)}" if each.unconsumed else ""
        table.add_row(
            each.exchange,
            each.operation,
            Text(f"{sum(each.depths):,}", justify="right"),
            _bars(each.depths, deepest),
            Text(unconsumed, style="bold red"),
        )
    return table


def _bars(depths: Sequence[int], deepest: int) -> Text:
    # One letter a range; where a queue is empty, a dot.
    letters = ("·" if not depth else _BARS[(len(_BARS) - 1) * depth // deepest] for depth in depths)
    return Text("".join(letters), style="cyan")


def _state(figures: Figures) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row("calls in flight", f"{figures.calls_in_flight:,}")
    table.add_row("unacked entries", _use(figures.unacked_entries))
    table.add_row("unacked bytes", _use(figures.unacked_bytes))
    table.add_row("dead letters", _aside(figures.dead_letters))
    table.add_row("quarantine", _aside(figures.quarantined))
    if figures.blocked:
        table.add_row("broker", Text("blocks publishers", style="bold red"))
    return table


def _use(use: Use) -> Text:
    share = use.used / use.bound if use.bound else 0.0
    filled = min(_BAR_WIDTH, round(share * _BAR_WIDTH))
    bar = "█" * filled + "░" * (_BAR_WIDTH - filled)
    return Text(f"{bar} {use.used:,.0f} of {use.bound:,.0f} ({share:.0%})", style="yellow" if share > 0.9 else "")


def _aside(count: int) -> Text:
    return Text(f"{count:,}", style="bold yellow" if count else "")
