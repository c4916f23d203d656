"""`python -m bench`: measures a stack and what it is compared with, prints what it saw, and keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from bench.machine import describe
from bench.on_stacks import run
from bench.parts import MONGODB_PARTS, PARTS, chosen
from bench.plot import plot
from bench.record import save
from bench.results import Results
from bench.session import Sizes
from bench.table import print_results
from provgate_stack.command_line import run_command_line

_RESULTS: Final = Path(__file__).resolve().parent / "results"
_path = click.Path(dir_okay=False, path_type=Path)


@click.command(epilog=f"Parts: {', '.join(part.name for part in PARTS)}.")
@click.option("--quick", is_flag=True, help="Fewer parts and fewer rounds: below 5 minutes.")
@click.option("--large", is_flag=True, help="Measure tables of 2,000,000 rows too.")
@click.option("--mongodb", is_flag=True, help="Measure a stack on MongoDB too.")
@click.option("--only", multiple=True, metavar="PART [PART]...", help="Measure these parts alone.")
@click.option("--rounds", type=click.IntRange(1), help="How many rounds of each write are counted.")
@click.option("--entries", type=click.IntRange(1), help="How many entries each write has.")
@click.option("--json", "json_path", type=_path, help="Where all that was seen goes; bench/results/ by default.")
@click.option("--plot", "plot_path", type=_path, help="Where the picture (SVG) goes; bench/results/ by default.")
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
    """Measures writes, reads, memory and starts through the whole stack, and what they are compared with.

    Subjects take turns: the gateway; `direct`, the local storage over one connection; `limit`, the plainest pipeline
    of publishing, consuming and COPY into the same tables; `habits`, the same with 100 entries a package and a
    statement. Ratios are within a round.
    """
    try:
        parts = chosen([*only, *more], quick, large)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    results, sizes = Results(describe()), Sizes(quick, rounds, entries)
    run(parts, "postgresql", results, sizes)
    run(MONGODB_PARTS if mongodb else [], "mongodb", results, sizes)
    print_results(results)
    stem = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    _save(results, json_path or _RESULTS / f"{stem}.json", plot_path or _RESULTS / f"{stem}.svg")


def _save(results: Results, json_path: Path, plot_path: Path) -> None:
    save(results, json_path)
    print(json_path)
    if results.written:
        plot(results, plot_path)
        print(plot_path)


def main() -> None:
    """Runs the command line."""
    run_command_line(cli)


if __name__ == "__main__":
    main()
