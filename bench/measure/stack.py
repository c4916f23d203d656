"""Operation of the stack: start of workers, CPU time at rest, disk space, and the git indexer from end to end."""

from __future__ import annotations

import resource
import subprocess
import time
from typing import Final

from bench.measure.cpu import cpu_seconds, spent
from bench.report.results import Indexing
from bench.session import Session
from bench.subjects import DIRECT, GATEWAY
from bench.writes.history import URL, repository, revision_count
from provgate_stack.processes.programs import program_path
from provgate_storage import EntityType

_STARTS: Final = 7
_IDLE_S: Final = 60.0
_ROWS: Final = 1_000_000
_INDEXINGS: Final = 3


def measure_starts(session: Session) -> None:
    """Restarts the worker program several times, with schema and topology in place."""
    for _ in range(session.sizes.count(_STARTS)):
        for program in session.stack.workers:
            program.terminate()
        started = time.monotonic()
        session.stack.start_workers()
        session.results.ready_s.append(time.monotonic() - started)


def measure_idle(session: Session) -> None:
    """Measures the CPU time of the stack at rest for a minute."""
    before = cpu_seconds(session.stack.path)
    time.sleep(_IDLE_S)
    used = spent(before, cpu_seconds(session.stack.path))
    session.results.idle_share |= {role: cpu_s / _IDLE_S for role, cpu_s in used.items()}


def measure_sizes(session: Session) -> None:
    """Measures the disk space of tables of 1,000,000 rows, with their indexes."""
    database = session.subjects.get(DIRECT).database
    database.empty()
    database.fill(_ROWS)
    session.results.row_bytes |= {table: size / _ROWS for table, size in database.sizes_bytes().items()}
    database.empty()


def measure_indexing(session: Session) -> None:
    """Indexes a history into empty tables with `provgate index`, several times."""
    history = repository(session.directory)
    revisions = revision_count(history)
    database = session.subjects.get(GATEWAY).database
    command = [program_path("provgate"), "index", str(history), "--origin", URL, "--any-owner"]
    for _ in range(session.sizes.count(_INDEXINGS)):
        database.empty()
        database.rest()
        before, own_before, started = cpu_seconds(session.stack.path), _children_cpu_s(), time.monotonic()
        subprocess.run(command, env=session.stack.client_environment(), check=True, capture_output=True)
        seconds = time.monotonic() - started
        cpu_s = spent(before, cpu_seconds(session.stack.path)) | {"client": _children_cpu_s() - own_before}
        counts = database.counts()
        if counts[EntityType.REVISION] < revisions:
            raise RuntimeError(f"{counts[EntityType.REVISION]} of {revisions} revisions are stored")
        session.results.indexings.append(Indexing(history.stem, revisions, sum(counts.values()), seconds, cpu_s))


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
