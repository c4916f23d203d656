"""What the stack costs when nobody uses it."""

from __future__ import annotations

import time
from typing import Final

from bench.cpu import cpu_seconds, spent
from bench.session import Session

_SECONDS: Final = 60.0


def measure_idle(session: Session) -> None:
    """Watches the stack at rest for a minute."""
    before = cpu_seconds(session.stack.path)
    time.sleep(_SECONDS)
    used = spent(before, cpu_seconds(session.stack.path))
    session.results.idle_share |= {role: cpu_s / _SECONDS for role, cpu_s in used.items()}
