"""How soon a worker program is ready where schema and topology are in place."""

from __future__ import annotations

import time
from typing import Final

from bench.session import Session

_USUAL: Final = 7


def measure_starts(session: Session) -> None:
    """Stops the worker programs and starts one again, several times; the last one is left running."""
    for _ in range(session.sizes.count(_USUAL)):
        for program in session.stack.workers:
            program.terminate()
        started = time.monotonic()
        session.stack.start_workers()
        session.results.ready_s.append(time.monotonic() - started)
