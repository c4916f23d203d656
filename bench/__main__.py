"""`python -m bench`: starts a stack, measures it, and prints what it saw."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Final

import click

from bench.idle import idle_share
from bench.writes import WriteFigures, contents, latencies_s, measure, relations
from provgate_stack.launcher import temporary_stack
from provgate_storage import get_provenance_storage

_ROOT: Final = Path(__file__).resolve().parent.parent / ".stack"
_WRITES: Final = {"contents": contents, "relations": relations}


@click.command()
@click.option("--entries", default=200_000, show_default=True, help="Entries of one write.")
@click.option("--runs", default=5, show_default=True, help="Writes of each kind that are counted.")
@click.option("--single", default=500, show_default=True, help="Writes of one entry.")
@click.option("--idle-seconds", default=60.0, show_default=True, help="How long the stack is watched at rest.")
def main(entries: int, runs: int, single: int, idle_seconds: float) -> None:
    """Measures writes through the whole stack: rate, CPU seconds by role, latency, and the cost of rest."""
    with (
        temporary_stack(_ROOT, "bench", "postgresql") as stack,
        get_provenance_storage(cls="grpc", url=stack.address) as storage,
    ):
        for name, write in _WRITES.items():
            _print_writes(name, measure(storage, write, entries, runs, stack.path))
        _print_latencies(latencies_s(storage, single))
        _print_idle(idle_share(stack.path, idle_seconds))


def _print_writes(name: str, figures: WriteFigures) -> None:
    total = sum(figures.seconds_per_million.values())
    by_role = ", ".join(f"{role} {seconds:.2f}" for role, seconds in sorted(figures.seconds_per_million.items()))
    print(f"{name}: {figures.rate:,.0f} entries/s (median); {total:.1f} CPU s a million: {by_role}")


def _print_latencies(taken_s: list[float]) -> None:
    p50, p99 = statistics.median(taken_s), taken_s[len(taken_s) * 99 // 100]
    print(f"one entry, call to return: p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms")


def _print_idle(shares: dict[str, float]) -> None:
    by_role = ", ".join(f"{role} {share:.2%}" for role, share in sorted(shares.items()))
    print(f"idle: {sum(shares.values()):.2%} of a core: {by_role}")


if __name__ == "__main__":
    main()
