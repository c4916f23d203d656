"""Rounds: each subject once, one after the other, with the same data."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Final

from bench.databases.database import check_rows
from bench.measure.clients import Clients, Timing, sources
from bench.measure.cpu import cpu_seconds, spent
from bench.subjects import Subject
from bench.writes.expected import Rows, expected_rows
from bench.writes.loads import Write

# The work that servers do after the last ack belongs to this run.
_SETTLED_S: Final = 0.2
_SETTLED_CPU_S: Final = 0.03
_SETTLE_MAX_S: Final = 3.0


@dataclass(frozen=True)
class Workload:
    """The writes of a run.

    Attributes:
        name: the name on the command line.
        title: the name for people.
        make: makes the calls of one client from a source of randomness and a number of entries.
        entries: the number of entries of all clients together.
        subjects: the names of the subjects.
        rounds: the number of counted rounds; None for the usual number.
        clients: the number of concurrent clients, each with its own data.
        again: whether the same data is written twice, and only the second time is measured.
        warms_up: whether there is a first round that is not counted.
        grows: whether tables keep their rows; otherwise they are emptied before each run.
    """

    name: str
    title: str
    make: Callable[[random.Random, int], list[Write]]
    entries: int
    subjects: Sequence[str]
    rounds: int | None = None
    clients: int = 1
    again: bool = False
    warms_up: bool = True
    grows: bool = False


@dataclass(frozen=True)
class Run:
    """One subject in one round.

    Attributes:
        subject: its name.
        round: the number of the round; 0 is not counted.
        entries: the number of entries of all clients together.
        seconds: from the start of the first client to the end of the last.
        cpu_s: CPU seconds by role.
    """

    subject: str
    round: int
    entries: int
    seconds: float
    cpu_s: Mapping[str, float]


def measure(workload: Workload, subjects: Sequence[Subject], stack_path: Path, rounds: int) -> list[Run]:
    """Runs a workload and returns the runs that count.

    Raises:
        WrongRowsError: the stored rows after a run differ from the written ones.
    """
    with ExitStack() as opened:
        clients = {subject.name: opened.enter_context(_clients(workload, subject)) for subject in subjects}
        runs = []
        for number in range(0 if workload.warms_up else 1, rounds + 1):
            seed = secrets.token_hex(8)
            for each in clients.values():
                each.make(seed)
            expected, entries = _expected(workload, seed)
            for each in clients.values():
                each.made()
            # Each subject is once the one that profits from the caches of the one before.
            turn = number % len(subjects)
            for subject in [*subjects[turn:], *subjects[:turn]]:
                timings, cpu_s = _run(workload, subject, clients[subject.name], stack_path, expected)
                runs.append(Run(subject.name, number, entries, _seconds(timings), cpu_s))
    return [run for run in runs if run.round > 0]


def _calls(workload: Workload, source: random.Random) -> list[Write]:
    return workload.make(source, workload.entries // workload.clients)


def _clients(workload: Workload, subject: Subject) -> Clients:
    return Clients(list(islice(cycle(subject.writers), workload.clients)), partial(_calls, workload))


def _expected(workload: Workload, seed: str) -> tuple[dict[str, Rows], int]:
    writes = [write for source in sources(seed, workload.clients) for write in _calls(workload, source)]
    return expected_rows(writes), sum(write.count for write in writes)


def _run(
    workload: Workload, subject: Subject, clients: Clients, stack_path: Path, expected: Mapping[str, Rows]
) -> tuple[list[Timing], dict[str, float]]:
    database = subject.database
    if not workload.grows:
        database.empty()
    if workload.again:
        clients.go()
    stored = database.counts() if workload.grows else {}
    database.rest()
    before = cpu_seconds(stack_path)
    timings = clients.go()
    cpu_s = spent(before, _settled(stack_path)) | {"client": sum(timing.cpu_s for timing in timings)}
    check_rows(database, expected, stored)
    return timings, cpu_s


def _settled(stack_path: Path) -> dict[str, float]:
    """Returns the CPU seconds of the servers once they are idle."""
    deadline = time.monotonic() + _SETTLE_MAX_S
    seen = cpu_seconds(stack_path)
    while True:
        time.sleep(_SETTLED_S)
        earlier, seen = seen, cpu_seconds(stack_path)
        if sum(spent(earlier, seen).values()) < _SETTLED_CPU_S or time.monotonic() > deadline:
            return seen


def _seconds(timings: Sequence[Timing]) -> float:
    return max(timing.ended for timing in timings) - min(timing.started for timing in timings)
