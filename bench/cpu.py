"""CPU time of the stack, by what the processes are for."""

from __future__ import annotations

from pathlib import Path

import psutil

from provgate_stack.leftovers import processes_of, role_of


def cpu_seconds(stack_path: Path) -> dict[str, float]:
    """Returns the CPU seconds, so far, of all processes of a stack by role, and of this process as `client`."""
    seconds = {"client": _seconds(psutil.Process())}
    counted: set[int] = set()
    for process in processes_of(stack_path):
        role = role_of(process)
        # PostgreSQL's own processes do not keep the environment by which the others are found.
        for member in [process, *process.children(recursive=True)]:
            if member.pid not in counted:
                counted.add(member.pid)
                seconds[role] = seconds.get(role, 0.0) + _seconds(member)
    return seconds


def spent(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Returns what was spent between two calls of `cpu_seconds`."""
    return {role: after[role] - before.get(role, 0.0) for role in after}


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    own = times.user + times.system
    # Children that ended count with their parent; those that live are counted themselves.
    return own + times.children_user + times.children_system
