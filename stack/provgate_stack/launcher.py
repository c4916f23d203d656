"""A whole stack: directory, servers, workers and gateway; started in order, stopped in the reverse one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from provgate_stack.command_line import uninterrupted
from provgate_stack.errors import StackError
from provgate_stack.processes.directory import StackDirectory, remove_running, running
from provgate_stack.processes.leftovers import processes_of, role_of, wait_gone
from provgate_stack.processes.process import free_port
from provgate_stack.servers.packages import install_missing_servers
from provgate_stack.servers.selection import STORAGES, Servers
from provgate_stack.stack import Stack

# The directory's name of the stack that runs in the background.
BACKGROUND: Final = "up"

# Of the gateway, if it is free.
PREFERRED_PORT: Final = 50051

_STOP_S: Final = 30.0


@contextmanager
def temporary_stack(root: Path, kind: str, storage: str) -> Iterator[Stack]:
    """Starts a stack for the time of a block; at the end, and whatever happens, nothing of it is left.

    Args:
        root: the `.stack` of a clone.
        kind: the start of the directory's name.
        storage: of `STORAGES`.

    Raises:
        StackError: something could not be started.
    """
    install_missing_servers(storage)
    directory = StackDirectory.claim_new(root, kind)
    try:
        stack, _ = _started(directory, storage, port=None)
        yield stack
        with uninterrupted():
            stack.stop()
    finally:
        with uninterrupted():
            directory.remove()


def start_in_background(root: Path, storage: str) -> dict[str, Any]:
    """Starts a stack on one of `STORAGES` that stays when the launcher ends, and returns its facts.

    Raises:
        StackError: something could not be started, or a stack runs already.
    """
    install_missing_servers(storage)
    directory = StackDirectory.claim(root, BACKGROUND)
    try:
        stack, roles = _started(directory, storage, free_port(PREFERRED_PORT))
        facts = {
            "storage": storage,
            "gateway": stack.address,
            "config": str(stack.write_profile()),
            "logs": str(directory.path),
            "metrics": stack.metrics_addresses(),
            "roles": roles,
        }
        directory.keep_running(facts)
    finally:
        with uninterrupted():
            # Of no effect once it was left running.
            directory.remove()
    return facts


def running_stack(root: Path) -> dict[str, Any] | None:
    """Returns the facts of the stack that runs in the background, or None.

    Raises:
        StackError: it lacks a process.
    """
    for path, facts in running(root).items():
        missing = set(facts["roles"]) - {role_of(process) for process in processes_of(path)}
        if missing:
            raise StackError(f"the stack in {path} has lost its {', '.join(sorted(missing))}: run `make down` first")
        return facts
    return None


def stop_background(root: Path) -> bool:
    """Stops the stack that runs in the background, and removes its data; returns whether there was one."""
    stacks = running(root)
    with uninterrupted():
        for path in stacks:
            # What a gateway has in hand still needs workers.
            for role in ("gateway", "workers"):
                _terminate(path, role)
        remove_running(root)
    return bool(stacks)


def _started(directory: StackDirectory, storage: str, port: int | None) -> tuple[Stack, list[str]]:
    servers = Servers(directory, storage)
    print(f"Starting RabbitMQ and {STORAGES[storage]}", flush=True)
    rabbitmq_url, storage_config = servers.start()
    stack = Stack(rabbitmq_url, storage_config, directory, port=port)
    print("Starting workers and gateway", flush=True)
    stack.start()
    return stack, [*servers.private_roles(), "workers", "gateway"]


def _terminate(path: Path, role: str) -> None:
    processes = [process for process in processes_of(path) if role_of(process) == role]
    pids = {process.pid for process in processes}
    for process in processes:
        # The program itself; it ends its own children.
        if process.ppid() not in pids:
            _ask_to_end(process)
    wait_gone(processes, _STOP_S)


def _ask_to_end(process: psutil.Process) -> None:
    try:
        process.terminate()
    except psutil.NoSuchProcess:
        return
