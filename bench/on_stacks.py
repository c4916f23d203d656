"""Runs the parts of a benchmark on stacks of their own."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.figures import rate
from bench.parts import Part
from bench.results import Results, Written
from bench.session import Session, Sizes
from bench.subjects import Subjects
from provgate_stack.launcher import temporary_stack
from provgate_stack.servers.selection import AMQP_VARIABLE, POSTGRES_VARIABLE

_ROOT: Final = Path(__file__).resolve().parent.parent / ".stack"


def run(parts: Sequence[Part], storage: str, results: Results, sizes: Sizes) -> None:
    """Measures parts on a stack of private servers, one after the other, and says how far it is."""
    if not parts:
        return
    # Databases are made and settings of the server changed; and the CPU time of a server elsewhere is not seen.
    for variable in (AMQP_VARIABLE, POSTGRES_VARIABLE):
        os.environ.pop(variable, None)
    with (
        tempfile.TemporaryDirectory() as directory,
        temporary_stack(_ROOT, "bench", storage) as stack,
        Subjects(stack) as subjects,
    ):
        session = Session(stack, subjects, results, Path(directory), sizes)
        for part in parts:
            _measure(part, session)


def _measure(part: Part, session: Session) -> None:
    print(f"{part.name} ", end="", flush=True)
    started, before = time.monotonic(), len(session.results.written)
    part.measure(session)
    rates = "; ".join(map(_rates, session.results.written[before:]))
    print(f"({time.monotonic() - started:.0f} s) {rates}", flush=True)


def _rates(written: Written) -> str:
    subjects = dict.fromkeys(run.subject for run in written.runs)
    return ", ".join(f"{name} {rate(written.of(name)):,.0f}/s" for name in subjects)
