"""CPU time of the servers, by role."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import psutil

from provgate_stack.processes.leftovers import processes_of

_ROLES: Final = {"rabbitmq": "broker", "postgresql": "database", "mongodb": "database"}

ROLES: Final = ("client", "gateway", "broker", "workers", "database")
"""The roles, in the order in which a write meets them."""


def cpu_seconds(stack_path: Path) -> dict[str, float]:
    """Returns the CPU seconds, so far, of all processes of a stack by role."""
    seconds = dict.fromkeys(ROLES[1:], 0.0)
    for process, role in processes_of(stack_path).items():
        name = _ROLES.get(role, role)
        seconds[name] = seconds.get(name, 0.0) + _seconds(process)
    return seconds


def spent(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Returns the CPU seconds between two results of `cpu_seconds`."""
    return {role: after[role] - before.get(role, 0.0) for role in after}


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    own = times.user + times.system
    # Children that ended count with their parent; live children are in the list themselves.
    return own + times.children_user + times.children_system
