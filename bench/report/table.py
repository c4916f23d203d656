"""The results as tables for a terminal."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from bench.measure.cpu import ROLES
from bench.measure.rounds import Run
from bench.report.goals import Goal, goals
from bench.report.results import Results, Written, cpu_s_per_million, percentile, rate, ratio, total_cpu_s_per_million
from bench.subjects import DIRECT, GATEWAY, GATEWAYS, HABITS, LIMIT

_OTHERS = (DIRECT, LIMIT, HABITS)
# Wide enough for every row: a narrow terminal wraps lines, but a narrow table would cut them.
_WIDTH = 200

Cells = tuple[str, ...]


def print_results(results: Results) -> None:
    """Prints all results."""
    console = Console(width=_WIDTH)
    if results.written:
        columns = ["entries", "entries/s", *(f"rate by\n{name}" for name in _OTHERS)]
        columns += [*(f"CPU\n{name}" for name in (*ROLES, "in all", *_OTHERS))]
        title = "Writes through the gateway: rate, its ratio to the others', CPU seconds per million entries"
        console.print(_table(title, columns, written_rows(results.written)))
    if results.latencies:
        console.print(_table("Milliseconds, p50 / p99", [GATEWAY, DIRECT, LIMIT], latency_rows(results)))
    figures = [*other_rows(results)]
    if figures:
        console.print(_table("Memory, start, indexing, rest", ["seen"], figures))
    console.print(_table("Goals", ["bound", "seen", ""], map(goal_row, goals(results))))


def written_rows(written: Iterable[Written]) -> Iterator[Cells]:
    """Yields a row for each workload, and one more for two gateways."""
    for each in written:
        for subject in (GATEWAY, GATEWAYS):
            runs = each.of(subject)
            if runs:
                title = each.title if subject == GATEWAY else f"{each.title}, {subject}"
                by_role = [f"{seconds:.2f}" for seconds in cpu_s_per_million(runs).values()]
                ratios = [_shown(ratio(each.runs, subject, other)) for other in _OTHERS]
                totals = [_total(each.of(name)) for name in (subject, *_OTHERS)]
                yield (title, f"{each.entries:,}", f"{rate(runs):,.0f}", *ratios, *by_role, *totals)


def latency_rows(results: Results) -> Iterator[Cells]:
    """Yields a row for each kind of call."""
    for name in dict.fromkeys(latency.name for latency in results.latencies):
        taken = {latency.subject: latency.taken_ms for latency in results.latencies if latency.name == name}
        title = next(latency.title for latency in results.latencies if latency.name == name)
        yield (title, *(_percentiles(taken.get(subject)) for subject in (GATEWAY, DIRECT, LIMIT)))


def other_rows(results: Results) -> Iterator[Cells]:
    """Yields the other results: memory, start, indexing, rest, disk, stages, transactions."""
    for name, mib in results.memory_mib.items():
        yield f"memory (PSS): {name}", f"{mib:.1f} MiB"
    if results.ready_s:
        yield "worker program, start to ready", f"{statistics.median(results.ready_s):.2f} s"
    if results.indexings:
        run = results.indexings[0]
        seconds = statistics.median(run.seconds for run in results.indexings)
        title = f"provgate index: {run.repository}, {run.revisions:,} revisions, {run.entries:,} entries"
        yield title, f"{seconds:.2f} s; CPU {sum(run.cpu_s.values()):.2f} s"
    for role, share in results.idle_share.items():
        yield f"at rest: {role}", f"{share:.2%} of a core"
    for table, size in results.row_bytes.items():
        yield f"{table}: a row with its share of the indexes", f"{size:.0f} bytes"
    for name, stages in results.stages.items():
        for stage, cpu_s in stages.items():
            yield f"{name}, {stage}", f"{cpu_s:.2f} CPU s a million"
    for title, cpu_s in results.transactions.items():
        yield title, f"{cpu_s:.2f} CPU s of the database a million"


def goal_row(goal: Goal) -> Cells:
    """Returns the row of a goal."""
    return goal.title, goal.bound, goal.seen, "held" if goal.held else "missed"


def _table(title: str, columns: Iterable[str], rows: Iterable[Cells]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _total(runs: Sequence[Run]) -> str:
    return f"{total_cpu_s_per_million(runs):.1f}" if runs else ""


def _percentiles(taken_ms: list[float] | None) -> str:
    return "" if taken_ms is None else f"{percentile(taken_ms, 50):.2f} / {percentile(taken_ms, 99):.2f}"


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
