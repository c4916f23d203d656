"""`python -m bench`: measures a stack and the systems that it is compared with, and prints and saves the results."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from bench.parts import MONGODB_PARTS, PARTS, Part, chosen
from bench.report.machine import describe
from bench.report.plot import plot
from bench.report.record import save
from bench.report.results import Results, rate
from bench.report.table import print_results
from bench.session import Session, Sizes
from bench.subjects import Subjects
from provgate_stack.command_line import run_command_line
from provgate_stack.launcher import temporary_stack
from provgate_stack.servers.selection import AMQP_VARIABLE, MONGODB_VARIABLE, POSTGRES_VARIABLE

_HERE: Final = Path(__file__).resolve().parent
_RESULTS: Final = _HERE / "results"
_path = click.Path(dir_okay=False, path_type=Path)


@click.command(epilog=f"Parts: {', '.join(part.name for part in PARTS)}.")
@click.option("--quick", is_flag=True, help="Fewer parts and fewer rounds: below 5 minutes.")
@click.option("--large", is_flag=True, help="Measure tables of 2,000,000 rows too.")
@click.option("--mongodb", is_flag=True, help="Measure a stack on MongoDB too.")
@click.option("--only", multiple=True, metavar="PART [PART]...", help="Measure only these parts.")
@click.option("--rounds", type=click.IntRange(1), help="The number of counted rounds of each write.")
@click.option("--entries", type=click.IntRange(1), help="The number of entries of each write.")
@click.option("--json", "json_path", type=_path, help="The file of all results; by default in bench/results/.")
@click.option("--plot", "plot_path", type=_path, help="The file of the picture (SVG); by default in bench/results/.")
@click.argument("more", nargs=-1, metavar="")
def cli(
    quick: bool,
    large: bool,
    mongodb: bool,
    only: Sequence[str],
    rounds: int | None,
    entries: int | None,
    json_path: Path | None,
    plot_path: Path | None,
    more: Sequence[str],
) -> None:
    """Measures writes, reads, memory and starts through the whole stack, and the systems that it is compared with.

    Subjects take turns: the gateway; `direct`, the local storage over one connection; `limit`, the simplest pipeline
    of publishing, consuming and COPY into the same tables; `habits`, the same with 100 entries a package and a
    statement. Ratios are within a round.
    """
    try:
        parts = chosen([*only, *more], quick, large)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    results, sizes = Results(describe()), Sizes(quick, rounds, entries)
    _run(parts, "postgresql", results, sizes)
    _run(MONGODB_PARTS if mongodb else [], "mongodb", results, sizes)
    print_results(results)
    stem = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    json_path = json_path or _RESULTS / f"{stem}.json"
    save(results, json_path)
    print(json_path)
    if results.written:
        plot_path = plot_path or _RESULTS / f"{stem}.svg"
        plot(results, plot_path)
        print(plot_path)


def _run(parts: Sequence[Part], storage: str, results: Results, sizes: Sizes) -> None:
    """Measures parts on a stack of private servers, one after the other, and prints the progress."""
    if not parts:
        return
    # Databases are created and emptied, settings of the server are changed, and CPU times are read: never on servers of
    # somebody else.
    for variable in (AMQP_VARIABLE, POSTGRES_VARIABLE, MONGODB_VARIABLE):
        os.environ.pop(variable, None)
    with (
        tempfile.TemporaryDirectory() as directory,
        temporary_stack(_HERE.parent / ".stack", "bench", storage) as stack,
        Subjects(stack) as subjects,
    ):
        session = Session(stack, subjects, results, Path(directory), sizes)
        for part in parts:
            print(f"{part.name} ", end="", flush=True)
            started, before = time.monotonic(), len(results.written)
            part.measure(session)
            rates = [
                f"{name} {rate(written.of(name)):,.0f}/s"
                for written in results.written[before:]
                for name in dict.fromkeys(run.subject for run in written.runs)
            ]
            print(f"({time.monotonic() - started:.0f} s) {', '.join(rates)}", flush=True)


if __name__ == "__main__":
    run_command_line(cli)
