"""`python -m bench`: starts a stack, measures it and what it is compared with, and prints what it saw."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from bench.cpu import ROLES
from bench.figures import figures, ratio
from bench.parts import chosen
from bench.results import Results
from bench.rounds import Run
from bench.session import Session
from bench.subjects import GATEWAY, Subjects
from provgate_stack.launcher import temporary_stack

_ROOT: Final = Path(__file__).resolve().parent.parent / ".stack"


@click.command()
@click.option("--only", multiple=True, help="Only this workload; may be given again, or followed by more names.")
@click.option("--rounds", type=int, help="Rounds that are counted.")
@click.option("--quick", is_flag=True)
@click.argument("more", nargs=-1, metavar="[NAME]...")
def main(only: Sequence[str], rounds: int | None, quick: bool, more: Sequence[str]) -> None:
    """Measures writes through the whole stack, and what it is compared with, in turn."""
    import time

    results = Results()
    with (
        tempfile.TemporaryDirectory() as directory,
        temporary_stack(_ROOT, "bench", "postgresql") as stack,
        Subjects(stack) as subjects,
    ):
        session = Session(stack, subjects, results, Path(directory), quick, rounds)
        for part in chosen([*only, *more], quick, []):
            t = time.monotonic()
            print(part.name, flush=True)
            part.measure(session)
            print("took", time.monotonic() - t)
            if results.written:
                _print(part.name, results.runs(part.name))
            print(results.memory_mib, results.ready_s, results.indexings, results.idle_share)
    for latency in results.latencies:
        taken = latency.taken_ms
        print(latency.title, latency.subject, taken[len(taken) // 2], taken[len(taken) * 99 // 100])
    results.save(Path("/tmp/bench/results.json"))


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
