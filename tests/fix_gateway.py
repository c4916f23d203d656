"""Gateways without workers, for tests that are the workers themselves."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from provgate_stack.processes.directory import StackDirectory
from provgate_stack.servers.postgresql import postgresql_storage
from provgate_stack.stack import Stack, StorageConfig
from tests.integration.scripted_workers import ScriptedWorkers, set_up

MakeStack = Callable[..., Stack]


@pytest.fixture(scope="module")
def workerless_stack(
    module_amqp_url: str, module_postgres_dsn: str, stack_directory: StackDirectory
) -> Iterator[Stack]:
    """A stack with topology and schema, of which nothing runs: a module starts the gateways that it needs."""
    storage_config = postgresql_storage(module_postgres_dsn)
    set_up(module_amqp_url, storage_config)
    stack = Stack(module_amqp_url, storage_config, stack_directory, name=f"gateway-{secrets.token_hex(4)}")
    yield stack
    stack.kill()


@pytest.fixture(scope="module")
def module_scripted_workers(workerless_stack: Stack, module_amqp_url: str) -> Iterator[ScriptedWorkers]:
    """Scripted workers behind `workerless_stack`. They leave the queues of locations alone."""
    with ScriptedWorkers(module_amqp_url, leaves=lambda queue: queue.startswith("location_add")) as workers:
        yield workers


@pytest.fixture
def scripted_workers(module_scripted_workers: ScriptedWorkers) -> ScriptedWorkers:
    """The module's scripted workers, which answer in full and have seen nothing yet."""
    module_scripted_workers.reset()
    return module_scripted_workers


@pytest.fixture
def make_stack(
    workerless_stack: Stack, module_amqp_url: str, module_postgres_dsn: str, stack_directory: StackDirectory
) -> Iterator[MakeStack]:
    """Makes a stack on the module's servers with settings of its own."""
    made: list[Stack] = []
    module_config = postgresql_storage(module_postgres_dsn)

    def make(storage_config: StorageConfig = module_config, amqp_url: str = module_amqp_url, **overrides: Any) -> Stack:
        name = f"start-{secrets.token_hex(4)}"
        made.append(Stack(amqp_url, storage_config, stack_directory, overrides, name=name))
        return made[-1]

    yield make
    for stack in made:
        stack.kill()
