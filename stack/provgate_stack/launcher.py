"""A whole stack: directory, servers, workers and gateway; started in this order, stopped in the reverse one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil

from provgate_stack.command_line import uninterrupted
from provgate_stack.errors import StackError
from provgate_stack.processes.directory import RunningStack, StackDirectory, remove_running, running
from provgate_stack.processes.leftovers import processes_of, wait_gone
from provgate_stack.processes.process import free_port
from provgate_stack.servers.packages import install_missing_servers
from provgate_stack.servers.selection import STORAGES, Servers
from provgate_stack.stack import Stack

BACKGROUND: Final = "up"
"""The directory name of the stack that runs in the background."""

PREFERRED_PORT: Final = 50051
"""The gateway's port, if it is free."""

_STOP_S: Final = 30.0


@contextmanager
def temporary_stack(root: Path, kind: str, storage: str) -> Iterator[Stack]:
    """Runs a stack for a block. Afterwards nothing of it is left, however the block ends.

    Args:
        root: the `.stack` of a clone.
        kind: the start of the directory's name.
        storage: a key of `STORAGES`.

    Raises:
        StackError: something could not be started.
    """
    install_missing_servers(storage)
    directory = StackDirectory.claim_new(root, kind)
    try:
        stack, _ = _start(directory, storage, port=None)
        yield stack
        with uninterrupted():
            stack.stop()
    finally:
        with uninterrupted():
            directory.remove()


def start_in_background(root: Path, storage: str) -> RunningStack:
    """Starts a stack that stays when the launcher ends.

    Raises:
        StackError: something could not be started, or a stack runs already.
    """
    install_missing_servers(storage)
    directory = StackDirectory.claim(root, BACKGROUND)
    try:
        stack, servers = _start(directory, storage, free_port(PREFERRED_PORT))
        facts = RunningStack(
            storage=storage,
            gateway=stack.address,
            config=str(stack.write_profile()),
            logs=str(directory.path),
            metrics=stack.metrics_addresses(),
            roles=[*servers.private_roles(), "workers", "gateway"],
        )
        directory.keep_running(facts)
    finally:
        with uninterrupted():
            # Does nothing once the stack was left running.
            directory.remove()
    return facts


def running_stack(root: Path) -> RunningStack | None:
    """Returns the stack that runs in the background, or None.

    Raises:
        StackError: it lacks a process.
    """
    for path, facts in running(root).items():
        missing = set(facts.roles) - set(processes_of(path).values())
        if missing:
            raise StackError(f"the stack in {path} has lost its {', '.join(sorted(missing))}: run `make down` first")
        return facts
    return None


def stop_background(root: Path) -> bool:
    """Stops the stack that runs in the background, and removes its data; returns whether there was one."""
    stacks = running(root)
    with uninterrupted():
        for path in stacks:
            # The gateway still needs workers for the writes that it has accepted.
            for role in ("gateway", "workers"):
                _terminate(path, role)
        remove_running(root)
    return bool(stacks)


def _start(directory: StackDirectory, storage: str, port: int | None) -> tuple[Stack, Servers]:
    servers = Servers(directory, storage)
    print(f"Starting RabbitMQ and {STORAGES[storage]}", flush=True)
    rabbitmq_url, storage_config = servers.start()
    stack = Stack(rabbitmq_url, storage_config, directory, port=port)
    print("Starting workers and gateway", flush=True)
    stack.start()
    return stack, servers


def _terminate(path: Path, role: str) -> None:
    processes = [process for process, role_of in processes_of(path).items() if role_of == role]
    pids = {process.pid for process in processes}
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            # The program itself; it ends its own children.
            if process.ppid() not in pids:
                process.terminate()
    wait_gone(processes, _STOP_S)
