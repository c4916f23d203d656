"""What the stack costs when nobody uses it."""

from __future__ import annotations

import time
from pathlib import Path

from bench.cpu import cpu_seconds, spent


def idle_share(stack_path: Path, seconds: float) -> dict[str, float]:
    """Returns the share of one core that each role uses over `seconds` without work."""
    before = cpu_seconds(stack_path)
    time.sleep(seconds)
    used = spent(before, cpu_seconds(stack_path))
    return {role: cpu / seconds for role, cpu in used.items() if role != "client"}
