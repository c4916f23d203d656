"""Rounds: each subject once, one after the other, with the same data."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Final

from bench.clients import Clients, Make, sources
from bench.cpu import cpu_seconds, spent
from bench.database import Rows
from bench.expected import expected_rows
from bench.subjects import Subject

# What servers still do when the last ack is out belongs to the run.
_SETTLE_S: Final = 0.3


@dataclass(frozen=True)
class Workload:
    """What is written in a run.

    Attributes:
        name: for the command line and the tables.
        make: makes the calls of one client.
        clients: how many write at once, each data of its own.
        again: whether the run that counts is the second one of the same data.
        subjects: the names of those that are compared.
    """

    name: str
    make: Make
    clients: int = 1
    again: bool = False
    subjects: Sequence[str] = ("gateway", "direct", "limit")


@dataclass(frozen=True)
class Run:
    """One subject in one round.

    Attributes:
        subject: its name.
        round: the number of the round.
        entries: that were written, by all clients together.
        seconds: from the start of the first client to the end of the last.
        cpu_s: CPU seconds by role.
    """

    subject: str
    round: int
    entries: int
    seconds: float
    cpu_s: Mapping[str, float]


def measure(workload: Workload, subjects: Mapping[str, Subject], stack_path: Path, rounds: int) -> list[Run]:
    """Runs a workload, after one round that is not counted.

    Raises:
        WrongRowsError: what is stored after a run is not what was written.
    """
    compared = [subjects[name] for name in workload.subjects]
    with ExitStack() as opened:
        clients = {subject.name: opened.enter_context(_clients(workload, subject)) for subject in compared}
        runs = []
        for number in range(rounds + 1):
            seed = secrets.token_hex(8)
            expected = _expected(workload, seed)
            # Whoever is first has a cooler machine: each is in turn.
            turn = number % len(compared)
            for subject in compared[turn:] + compared[:turn]:
                clients[subject.name].make(seed)
                runs.append(_run(workload, subject, clients[subject.name], stack_path, number, expected))
    return [run for run in runs if run.round > 0]


def _clients(workload: Workload, subject: Subject) -> Clients:
    return Clients(list(islice(cycle(subject.writers), workload.clients)), workload.make)


def _expected(workload: Workload, seed: str) -> dict[str, Rows]:
    return expected_rows(write for source in sources(seed, workload.clients) for write in workload.make(source))


def _run(
    workload: Workload, subject: Subject, clients: Clients, stack_path: Path, number: int, expected: Mapping[str, Rows]
) -> Run:
    subject.database.empty()
    if workload.again:
        clients.go()
    subject.database.rest()
    before = cpu_seconds(stack_path)
    timings = clients.go()
    time.sleep(_SETTLE_S)
    cpu_s = spent(before, cpu_seconds(stack_path)) | {"client": sum(timing.cpu_s for timing in timings)}
    check = subject.database.check_rows if subject.all_rows else subject.database.check_counts
    check(expected)
    seconds = max(timing.ended for timing in timings) - min(timing.started for timing in timings)
    return Run(subject.name, number, sum(map(len, expected.values())), seconds, cpu_s)
