"""The index of a real repository: the command as users run it, end to end."""

from __future__ import annotations

import resource
import subprocess
import time
from pathlib import Path
from typing import Final

from bench.cpu import cpu_seconds, spent
from bench.history import URL, repository, revision_count
from bench.results import Indexing
from bench.session import Session
from bench.subjects import GATEWAY
from provgate_stack.processes.programs import program_path
from provgate_storage import EntityType

_USUAL: Final = 3


def measure_indexing(session: Session) -> None:
    """Indexes a history into empty tables, several times."""
    history = repository(session.directory)
    for _ in range(session.sizes.count(_USUAL)):
        session.results.indexings.append(_index(session, history))


def _index(session: Session, history: Path) -> Indexing:
    database = session.subjects.get(GATEWAY).database
    database.empty()
    database.rest()
    before, own_before, started = cpu_seconds(session.stack.path), _children_cpu_s(), time.monotonic()
    command = [program_path("provgate"), "index", str(history), "--origin", URL, "--any-owner"]
    subprocess.run(command, env=session.stack.client_environment(), check=True, capture_output=True)
    seconds = time.monotonic() - started
    cpu_s = spent(before, cpu_seconds(session.stack.path)) | {"client": _children_cpu_s() - own_before}
    counts, revisions = database.counts(), revision_count(history)
    if counts[EntityType.REVISION] < revisions:
        raise RuntimeError(f"{counts[EntityType.REVISION]} of {revisions} revisions are stored")
    return Indexing(history.stem, revisions, sum(counts.values()), seconds, cpu_s)


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
