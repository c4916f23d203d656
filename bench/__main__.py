"""`python -m bench`: starts a stack, measures it and what it is compared with, and prints what it saw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from bench.cpu import ROLES
from bench.figures import figures, ratio
from bench.rounds import Run, measure
from bench.subjects import GATEWAY, subjects_on
from bench.workloads import WORKLOADS
from provgate_stack.launcher import temporary_stack

_ROOT: Final = Path(__file__).resolve().parent.parent / ".stack"


@click.command()
@click.option("--only", multiple=True, help="Only this workload; may be given again, or followed by more names.")
@click.option("--rounds", default=5, show_default=True, help="Rounds that are counted.")
@click.argument("more", nargs=-1, metavar="[NAME]...")
def main(only: Sequence[str], rounds: int, more: Sequence[str]) -> None:
    """Measures writes through the whole stack, and what it is compared with, in turn."""
    names = [*only, *more] or [*WORKLOADS]
    with temporary_stack(_ROOT, "bench", "postgresql") as stack, subjects_on(stack) as subjects:
        for name in names:
            _print(name, measure(WORKLOADS[name], subjects, stack.path, rounds))


def _print(name: str, runs: Sequence[Run]) -> None:
    for subject in dict.fromkeys(run.subject for run in runs):
        seen = figures([run for run in runs if run.subject == subject])
        by_role = ", ".join(f"{role} {seen.cpu_s_per_million.get(role, 0):.2f}" for role in ROLES)
        print(
            f"{name} {subject}: {seen.rate:,.0f} entries/s, {ratio(runs, GATEWAY, subject):.2f} of it by the gateway;"
            f" {seen.total_cpu:.2f} CPU s a million: {by_role}",
            flush=True,
        )


if __name__ == "__main__":
    main()
